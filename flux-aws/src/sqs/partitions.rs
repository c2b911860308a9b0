//! The partitions of the queue: an SQS queue each. How many there are is told by their
//! names alone, so that whoever may use them can count them.

use aws_sdk_sqs::Client;
use flux_core::seams::SeamError;
use futures_util::future::try_join_all;
use tracing::info;

use super::calls::Calls;
use super::{SERVICE, SqsQueue};
use crate::bill::Meter;

/// The partitions of a queue that [`create`](super::create()) makes, unless it is told.
pub const PARTITIONS: u16 = 16;
/// The most partitions of a queue.
pub const PARTITIONS_MAX: u16 = 256;
/// The names that are looked up at once.
const LOOKED_UP: u16 = PARTITIONS + 1;

/// The queues there are of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// One of this very name.
    Single,
    /// So many, numbered.
    Numbered(u16),
}

impl Found {
    fn count(self) -> u16 {
        match self {
            Self::Nothing => 0,
            Self::Single => 1,
            Self::Numbered(count) => count,
        }
    }

    /// The names, or URLs, of the partitions of this queue.
    pub(super) fn names(self, queue: &str) -> Vec<String> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Single => vec![queue.to_owned()],
            Self::Numbered(count) => (0..count).map(|number| numbered(queue, number)).collect(),
        }
    }
}

/// Opens the partitions of the queue of this name or URL, in their order: one if there is
/// a queue of this very name, or else those with a number behind it, `orders-0` to
/// `orders-15`, or `orders-0.fifo`. Their number is fixed when they are made. Without
/// `partitions` it is whatever there is.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use flux_aws::{aws, bill::Meter, sqs};
///
/// let client = aws_sdk_sqs::Client::new(&aws::from_env().await);
/// let options = sqs::CreateOptions { partitions: Some(4), ..Default::default() };
/// sqs::create(&client, "orders", &options).await?;
/// let partitions = sqs::open_partitions(client, "orders", Some(4), &Meter::default()).await?;
/// assert_eq!(partitions.len(), 4);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`SeamError::Broken`] when there is another number of them, which is told, or none; and
/// as [`SqsQueue::open`].
pub async fn open_partitions(
    client: Client,
    queue: &str,
    partitions: Option<u16>,
    meter: &Meter,
) -> Result<Vec<SqsQueue>, SeamError> {
    let found = find(&Calls::new(&client, meter), queue).await?;
    check(queue, found, partitions)?;
    if found == Found::Nothing {
        // Whether it is missing, or may not be seen, a closer look tells.
        let single = SqsQueue::open(client, queue, meter).await?;
        check(queue, Found::Single, partitions)?;
        return Ok(vec![single]);
    }
    info!(queue, partitions = found.count(), "the queue is there");
    let names = found.names(queue);
    try_join_all(names.iter().map(|name| SqsQueue::open(client.clone(), name, meter))).await
}

/// Refuses a number of partitions that is not the one there is, if there is one.
pub(super) fn check(queue: &str, found: Found, partitions: Option<u16>) -> Result<(), SeamError> {
    let Some(told) = partitions else { return Ok(()) };
    if !(1..=PARTITIONS_MAX).contains(&told) {
        let rule = format!("the partitions of a queue must be 1 to {PARTITIONS_MAX}, were {told}");
        return Err(SeamError::broken(SERVICE, rule));
    }
    let count = found.count();
    if found == Found::Nothing || count == told {
        return Ok(());
    }
    let partitions = if count == 1 { "partition" } else { "partitions" };
    let reason = format!(
        "the queue {queue} has {count} {partitions}, and not {told}: their number is fixed when the queue is made, and all processes must be told the same (--partitions {count})"
    );
    Err(SeamError::broken(SERVICE, reason))
}

/// Counts the queues of this name.
pub(super) async fn find(calls: &Calls, queue: &str) -> Result<Found, SeamError> {
    let mut count = 0;
    while count < PARTITIONS_MAX {
        let names = (count..count + LOOKED_UP).map(|number| numbered(queue, number));
        let there =
            try_join_all(names.map(|name| async move { calls.exists(&name).await })).await?;
        match there.iter().position(|there| !there) {
            None => count += LOOKED_UP,
            Some(last) => {
                count += last as u16;
                break;
            }
        }
    }
    match (calls.exists(queue).await?, count) {
        (true, 0) => Ok(Found::Single),
        (false, 0) => Ok(Found::Nothing),
        (false, count) => Ok(Found::Numbered(count)),
        // What is in the one that nobody reads would be accepted and never decided.
        (true, _) => Err(SeamError::broken(SERVICE, both(queue))),
    }
}

fn both(queue: &str) -> String {
    let first = numbered(queue, 0);
    format!(
        "there are a queue {queue} and partitions of it, such as {first}: only one of them would be read; let the old one run empty and delete it"
    )
}

/// The name, or URL, of a partition.
fn numbered(queue: &str, number: u16) -> String {
    match queue.strip_suffix(".fifo") {
        Some(stem) => format!("{stem}-{number}.fifo"),
        None => format!("{queue}-{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_behind_the_name_and_before_fifo() {
        assert_eq!(Found::Numbered(2).names("orders"), ["orders-0", "orders-1"]);
        assert_eq!(Found::Numbered(1).names("orders.fifo"), ["orders-0.fifo"]);
        let url = "https://sqs.eu-central-1.amazonaws.com/123456789012/flux";
        assert_eq!(Found::Numbered(1).names(url), [format!("{url}-0")]);
        assert_eq!(Found::Single.names(url), [url]);
        assert!(Found::Nothing.names(url).is_empty());
    }

    #[test]
    fn another_number_is_refused_with_the_one_there_is() {
        for (found, told) in
            [(Found::Single, 16), (Found::Numbered(16), 8), (Found::Numbered(4), 1)]
        {
            let refused = check("orders", found, Some(told)).expect_err("another number");
            let says = format!("has {} partition", found.count());
            assert!(refused.to_string().contains(&says), "{refused}");
        }
        for told in [0, 257] {
            assert!(check("orders", Found::Nothing, Some(told)).is_err(), "{told}");
        }
        for (found, told) in [(Found::Single, None), (Found::Numbered(4), None)] {
            assert!(check("orders", found, told).is_ok());
        }
        assert!(check("orders", Found::Single, Some(1)).is_ok());
        assert!(check("orders", Found::Numbered(16), Some(16)).is_ok());
        assert!(check("orders", Found::Nothing, Some(16)).is_ok());
    }
}
