//! The words that stand for the members of an enum, in JSON, in metrics and in
//! a query: one table for each enum, from which everything is read.

/// Gives an enum `ALL`, `as_str`, `Display` and `FromStr` from its members'
/// words. A member without a word does not compile, so `ALL` is always whole.
macro_rules! words {
    ($name:ident, $field:literal: $($member:ident = $word:literal),* or $last:ident = $last_word:literal) => {
        impl $name {
            /// Every member, in the order of declaration. As the enum may grow, a
            /// table that must have a row for each is compared with this.
            pub const ALL: &'static [Self] = &[$(Self::$member,)* Self::$last];

            /// The word used in JSON and metrics.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$member => $word,)*
                    Self::$last => $last_word,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::protocol::InvalidInput;
            /// Reads what [`as_str`](Self::as_str) gives.
            fn from_str(word: &str) -> Result<Self, Self::Err> {
                let known = Self::ALL.iter().copied().find(|known| known.as_str() == word);
                known.ok_or_else(|| {
                    let words = [$($word),*].join(", ");
                    $crate::protocol::InvalidInput::new(
                        $field,
                        format!("must be {words} or {}", $last_word),
                    )
                })
            }
        }
    };
}

pub(super) use words;
