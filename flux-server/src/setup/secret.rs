//! Secrets: text that no message shows, and that a request can carry.

use flux_core::InvalidInput;

/// Most bytes of a secret: it must fit into a request's head.
pub(super) const BYTES_MAX: usize = 8 * 1024;

/// Text that is not to be shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret that a request can carry as it is.
    ///
    /// # Errors
    /// Names the `field` and what is wrong with its text, without a part of it.
    pub fn new(field: &'static str, text: impl Into<String>) -> Result<Self, InvalidInput> {
        let text = text.into();
        match fault(&text) {
            Some(fault) => Err(InvalidInput::new(field, fault)),
            None => Ok(Self(text)),
        }
    }

    /// The secret of a variable, if that is set. An empty one is a fault: taken for one
    /// that is not set, it would switch off what it was to guard.
    pub(super) fn from_environment(name: &'static str) -> Result<Option<Self>, InvalidInput> {
        std::env::var(name).ok().map(|text| Self::new(name, text)).transpose()
    }

    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The reason that no request can carry `text`.
fn fault(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("is empty; give it a value, or leave it out altogether".to_owned());
    }
    if text.len() > BYTES_MAX {
        return Some(format!("must be at most {BYTES_MAX} bytes"));
    }
    let strange = |letter: char| !letter.is_ascii_graphic();
    let at = text.find(strange)?;
    let what = match text[at..].chars().next()? {
        '\n' | '\r' => "a line end",
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}' => {
            "a character without width"
        }
        '«' | '»' | '\u{2018}'..='\u{201f}' | '‹' | '›' => "a typographic quotation mark",
        letter if letter.is_whitespace() => "white space",
        letter if letter.is_control() => "a control character",
        _ => "a character beyond ASCII",
    };
    let place = match at {
        0 => "at its start",
        _ if text[at..].chars().all(strange) => "at its end",
        _ => "within it",
    };
    Some(format!("has {what} {place}, and must be visible ASCII: no request can carry it so"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show() {
        let secret = Secret::new("FLUX_OPERATOR_TOKEN", "hunter2").expect("a secret");
        assert!(!format!("{secret:?}").contains("hunter2"));
    }

    #[test]
    fn what_no_request_can_carry_is_refused_and_described_but_not_shown() {
        for (text, says) in [
            ("", "empty"),
            ("hunter2\n", "a line end at its end"),
            ("hunter2\r\n", "a line end at its end"),
            ("hun\nter2", "a line end within it"),
            (" hunter2", "white space at its start"),
            ("hunter2 ", "white space at its end"),
            ("hunter\t2", "white space within it"),
            ("hunter\u{a0}2", "white space within it"),
            ("\u{201c}hunter2\u{201d}", "quotation mark at its start"),
            ("hunter2\u{2019}", "quotation mark at its end"),
            ("hunter\u{200b}2", "without width within it"),
            ("\u{feff}hunter2", "without width at its start"),
            ("hunter2\u{7f}", "a control character at its end"),
            ("hünter2", "beyond ASCII within it"),
            (&"hunter2".repeat(2000), "at most 8192 bytes"),
        ] {
            let wrong = Secret::new("FLUX_OPERATOR_TOKEN", text).expect_err(text).to_string();
            assert!(wrong.starts_with("FLUX_OPERATOR_TOKEN: ") && wrong.contains(says), "{wrong}");
            assert!(!wrong.contains("unter") && !wrong.contains("nter2"), "{wrong}");
        }
        for sound in ["x", "a$b\\c#d'", "\"quoted\"", &"x".repeat(BYTES_MAX)] {
            assert_eq!(Secret::new("it", sound).expect(sound).reveal(), sound);
        }
    }
}
