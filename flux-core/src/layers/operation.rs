//! The calls of the seams by name, with the facts that a layer must know of each.

use std::fmt;
use std::time::Duration;

/// One of the seams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// The order queue.
    Queue,
    /// The lock manager.
    Locks,
    /// The inventory store.
    Store,
    /// The outcome bus.
    Bus,
    /// The change feed of a store.
    Changes,
}

impl Service {
    pub(super) const COUNT: usize = 5;

    /// The name used in errors, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Locks => "locks",
            Self::Store => "store",
            Self::Bus => "bus",
            Self::Changes => "changes",
        }
    }
}

macro_rules! operations {
    ($($service:ident { $($operation:ident $name:literal,)* })*) => {
        /// A method of one of the seams.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Operation {
            $($(#[doc = concat!("`", $name, "`")] $operation,)*)*
        }

        impl Operation {
            /// Every operation.
            pub const ALL: &[Self] = &[$($(Self::$operation,)*)*];
            pub(super) const COUNT: usize = Self::ALL.len();

            /// The seam it belongs to.
            #[must_use]
            pub fn service(self) -> Service {
                match self {
                    $($(Self::$operation)|* => Service::$service,)*
                }
            }

            /// The method's name.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $($(Self::$operation => $name,)*)*
                }
            }
        }
    };
}

operations! {
    Queue {
        Send "send",
        Receive "receive",
        Ack "ack",
        Retry "retry",
        Extend "extend",
        Bury "bury",
        DeadLetters "dead_letters",
        Redrive "redrive",
        Find "find",
        Depth "depth",
    }
    Locks {
        Acquire "acquire",
        AcquireFree "acquire_free",
        Join "join",
        Leave "leave",
        Renew "renew",
        Release "release",
    }
    Store {
        PutItem "put_item",
        Claim "claim",
        Commit "commit",
        Confirm "confirm",
        Orders "orders",
        ListOrders "list_orders",
        DueHolds "due_holds",
        Items "items",
        Levels "levels",
        ListItems "list_items",
        Stock "stock",
    }
    Bus {
        Publish "publish",
    }
    Changes {
        ReadChanges "changes",
        Newest "newest",
        KeepCursor "keep_cursor",
        Consumers "consumers",
        ForgetConsumer "forget_consumer",
    }
    // New ones come last: the faults of a seed hang on the place.
    Queue {
        Recall "recall",
        Announce "announce",
    }
    Store {
        Reserve "reserve",
        NoteAccepted "note_accepted",
        Known "known",
        Refund "refund",
        Owed "owed",
        Seal "seal",
        Unseal "unseal",
        File "file",
        TakeOut "take_out",
        BuryItems "bury_items",
        Delete "delete",
        Tombstones "tombstones",
        Buried "buried",
    }
}

impl Operation {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_read(self) -> bool {
        matches!(
            self,
            Self::DeadLetters
                | Self::Find
                | Self::Recall
                | Self::Depth
                | Self::Orders
                | Self::Known
                | Self::ListOrders
                | Self::DueHolds
                | Self::Items
                | Self::Levels
                | Self::ListItems
                | Self::Stock
                | Self::ReadChanges
                | Self::Newest
                | Self::Consumers
                | Self::Tombstones
                | Self::Owed
                | Self::Buried
        )
    }

    /// Whether it may be made again although it may have taken effect.
    ///
    /// Not so for a commit, which would find its own orders decided and call
    /// that a conflict: the worker finds out by claiming again. Nor for
    /// `put_item`, which could undo a later change; `redrive`, which would
    /// miscount; `acquire` and `acquire_free`, which would find a lease of
    /// their own in the way; and `delete`, which would find nothing to delete.
    #[must_use]
    pub fn may_repeat(self) -> bool {
        !matches!(
            self,
            Self::Commit
                | Self::PutItem
                | Self::Redrive
                | Self::Acquire
                | Self::AcquireFree
                | Self::Delete
        )
    }
}

impl fmt::Display for Operation {
    /// As in `store.commit`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service().as_str(), self.as_str())
    }
}

/// One call of a seam.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// The method.
    pub operation: Operation,
    /// The time the caller lets it wait for something to come
    /// (`receive`, `acquire`, `changes`); zero for all others.
    pub wait: Duration,
}

impl Call {
    /// A call that may wait.
    #[must_use]
    pub fn waiting(operation: Operation, wait: Duration) -> Self {
        Self { operation, wait }
    }
}

impl From<Operation> for Call {
    fn from(operation: Operation) -> Self {
        Self::waiting(operation, Duration::ZERO)
    }
}
