//! The body of an SQS message: a pack of messages, so that the price of an
//! order is a fraction of a request.

use flux_core::protocol::Message;
use flux_core::seams::SeamError;
use flux_core::{ItemId, OrderId};
use serde::Deserialize;
use serde_json::Value;

use super::SERVICE;

/// The format that is written, and the only one that is read.
const VERSION: u64 = 1;
/// Messages of one pack.
pub(super) const PACK_MAX: usize = 100;
/// Bytes of a pack's body, which stays within the 64 KiB billed as one request.
pub(super) const BODY_BYTES_MAX: usize = 60 * 1024;
/// Bytes of a message; a larger one is refused. With a reason beside it, it still
/// fits in 256 KiB, which every SQS queue takes.
const MESSAGE_BYTES_MAX: usize = 252 * 1024;

const HEAD: &str = r#"{"v":1,"m":["#;
const TAIL: &str = "]}";

/// The group that a FIFO queue keeps in order: the messages on one item. A message that
/// names no item goes by its order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    Order(OrderId),
    Item(ItemId),
}

impl Group {
    pub(super) fn of(message: &Message) -> Self {
        match message {
            // An order has a line at least.
            Message::Place(order) => Self::Item(order.lines[0].item.clone()),
            message => Self::Order(message.order_id()),
        }
    }

    fn item(&self) -> Option<&ItemId> {
        match self {
            Self::Order(_) => None,
            Self::Item(item) => Some(item),
        }
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::Order(id) => id.to_string(),
            Self::Item(item) => item.as_str().to_owned(),
        }
    }
}

/// A message on its way into a pack. `tag` says whose it is.
#[derive(Debug, Clone)]
pub(super) struct Entry<T> {
    json: String,
    group: Group,
    pub(super) tag: T,
}

impl<T> Entry<T> {
    /// Writes a message. `attempts` is how often it was delivered before, in packs that
    /// are gone.
    ///
    /// # Errors
    /// [`SeamError::Broken`] when the message is too large.
    pub(super) fn new(message: &Message, attempts: u32, tag: T) -> Result<Self, SeamError> {
        let json = serde_json::to_string(&(attempts, message))
            .map_err(|error| SeamError::broken(SERVICE, error.to_string()))?;
        if json.len() > MESSAGE_BYTES_MAX {
            let (id, bytes) = (message.order_id(), json.len());
            let reason = format!(
                "the message on order {id} has {bytes} bytes, at most {MESSAGE_BYTES_MAX} can be sent; order less at once"
            );
            return Err(SeamError::broken(SERVICE, reason));
        }
        Ok(Self { json, group: Group::of(message), tag })
    }

    pub(super) fn tagged<U>(self, tag: U) -> Entry<U> {
        Entry { json: self.json, group: self.group, tag }
    }
}

/// The body of one SQS message, and whose messages it holds.
#[derive(Debug)]
pub(super) struct Pack<T> {
    pub(super) body: String,
    pub(super) group: Group,
    pub(super) tags: Vec<T>,
}

impl<T> Pack<T> {
    fn begin(entry: Entry<T>) -> Self {
        let body = format!("{HEAD}{}", entry.json);
        Self { body, group: entry.group, tags: vec![entry.tag] }
    }

    fn has_room(&self, entry: &Entry<T>, most: usize) -> bool {
        let bytes = self.body.len() + 1 + entry.json.len() + TAIL.len();
        self.tags.len() < most && bytes <= BODY_BYTES_MAX
    }

    fn add(&mut self, entry: Entry<T>) {
        self.body.push(',');
        self.body.push_str(&entry.json);
        self.tags.push(entry.tag);
    }

    fn end(mut self) -> Self {
        self.body.push_str(TAIL);
        self
    }
}

/// The rule for sharing a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// Any messages share; those on one item stay together, so that workers contend less.
    Full,
    /// Messages of one group share, in order: a FIFO queue.
    ByGroup,
    /// No messages share.
    Alone,
}

/// Makes as few packs as the rule allows. Messages on one item keep their order.
pub(super) fn pack<T>(mut entries: Vec<Entry<T>>, packing: Packing) -> Vec<Pack<T>> {
    match packing {
        Packing::Full => entries.sort_by(|a, b| a.group.item().cmp(&b.group.item())),
        Packing::ByGroup => entries.sort_by(|a, b| a.group.cmp(&b.group)),
        Packing::Alone => {}
    }
    let most = if packing == Packing::Alone { 1 } else { PACK_MAX };
    let (mut packs, mut open) = (Vec::new(), None::<Pack<T>>);
    for entry in entries {
        let fits = |pack: &Pack<T>| {
            (packing != Packing::ByGroup || pack.group == entry.group)
                && pack.has_room(&entry, most)
        };
        match &mut open {
            Some(pack) if fits(pack) => pack.add(entry),
            // One too large to share leaves the open pack to those that follow.
            Some(_) if packing == Packing::Full && entry.json.len() > BODY_BYTES_MAX / 2 => {
                packs.push(Pack::begin(entry).end());
            }
            open => packs.extend(open.replace(Pack::begin(entry)).map(Pack::end)),
        }
    }
    packs.extend(open.map(Pack::end));
    packs
}

/// The contents of a pack.
#[derive(Debug, PartialEq)]
pub(super) struct Opened {
    /// The messages, with how often each was delivered in packs that are gone.
    pub(super) messages: Vec<(u32, Message)>,
    /// Packs of one message each that can't be read, and why.
    pub(super) bad: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Body<M> {
    v: u64,
    m: Vec<M>,
}

/// Reads a pack.
///
/// # Errors
/// The reason that nothing of it can be read.
pub(super) fn open(body: &str) -> Result<Opened, String> {
    if let Ok(Body { v: VERSION, m }) = serde_json::from_str::<Body<(u32, Message)>>(body)
        && !m.is_empty()
    {
        return Ok(Opened { messages: m, bad: Vec::new() });
    }
    let body: Value =
        serde_json::from_str(body).map_err(|error| format!("not a pack of messages: {error}"))?;
    match body.get("v") {
        Some(version) if *version == VERSION => {}
        Some(version) => return Err(format!("a pack of format {version}; known is {VERSION}")),
        None => return Err("not a pack of messages: it names no format".into()),
    }
    let Body { m, .. } = serde_json::from_value::<Body<Value>>(body)
        .map_err(|error| format!("not a pack of messages: {error}"))?;
    let mut opened = Opened { messages: Vec::new(), bad: Vec::new() };
    for value in m {
        match serde_json::from_value(value.clone()) {
            Ok(message) => opened.messages.push(message),
            Err(error) => {
                opened.bad.push((format!("{HEAD}{value}{TAIL}"), format!("no message: {error}")));
            }
        }
    }
    match (&opened.messages[..], &opened.bad[..]) {
        ([], []) => Err("a pack of no messages".into()),
        ([], [(_, reason), ..]) => Err(reason.clone()),
        _ => Ok(opened),
    }
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
