//! One function for each kind of mutant. `tests/mutants/selftest` has the outcomes.

/// What no switch can be in.
pub const DAY_S: u32 = 24 * 3_600;
const LIMIT: u32 = limit(2);

/// Is used by the compiler, so it stays.
pub const fn limit(hours: u32) -> u32 {
    hours + 1
}

/// Is not.
pub const fn doubled(number: u32) -> u32 {
    number * 2
}

/// Operators in operators, and one that is not tested.
pub fn fits(left: u32, right: u32, strict: bool) -> bool {
    left + right < LIMIT && !strict || left == right
}

/// A hang.
pub fn count_to(end: u32) -> u32 {
    let mut at = 0;
    while at != end {
        at += 1;
    }
    at
}

/// Arms and guards.
pub fn word(number: Option<u32>) -> &'static str {
    match number {
        None => "none",
        Some(0) | Some(1) => "few",
        Some(number) if number > 9 => "many",
        _ => "some",
    }
}

/// Names that a condition binds, and a literal that takes the rest from another.
pub fn wider(area: Option<Area>) -> Option<Area> {
    if let Some(area) = area
        && area.width > 0
    {
        return Some(Area { width: area.width * 2, ..area });
    }
    None
}

/// Has no default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Area {
    /// To the right.
    pub width: u32,
    /// Up.
    pub height: u32,
}

/// A type without a name.
pub fn squares(end: u32) -> impl Iterator<Item = u32> {
    (0..end).map(|number| number.pow(2))
}

/// Is called by nobody.
pub fn forgotten() -> bool {
    LIMIT > 5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_words() {
        let words = [None, Some(1), Some(5), Some(9), Some(10)].map(word);
        assert_eq!(words, ["none", "few", "some", "some", "many"]);
    }

    #[test]
    fn it_counts() {
        assert_eq!(count_to(3), 3);
        assert_eq!(doubled(3), 6);
        assert_eq!(limit(1), 2);
    }
}
