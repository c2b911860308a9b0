//! `.env`, read with care: a dollar sign, a backslash or a hash can turn a secret into
//! another one, or into none. A secret there is what its line says, or an error.

use std::io;

/// The reason that `.env` can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DotenvError {
    /// It can't be read.
    #[error("can't read .env: {0}")]
    Unreadable(io::Error),
    /// It can't be understood. The line is not shown: it may be a secret's.
    #[error("can't understand .env{}", .0.map(|line| format!(", line {line}")).unwrap_or_default())]
    Malformed(Option<usize>),
    /// A secret would be read as something else than is written.
    #[error("{0} in .env would not be used as it stands there; write it in single quotes")]
    Changed(&'static str),
}

/// Takes the variables of `.env` in the working directory, if there is one,
/// into the environment; those that are set there already stay. Of `secrets`
/// each must be read as it is written.
pub(crate) fn load(secrets: &[&'static str]) -> Result<(), DotenvError> {
    let text = match std::fs::read_to_string(".env") {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(DotenvError::Unreadable(error)),
    };
    let text = text.trim_start_matches('\u{feff}');
    check(text, secrets)?;
    dotenvy::from_read(text.as_bytes()).map_err(|wrong| explain(text, &wrong))
}

/// Whether each secret is read as it is written.
pub(crate) fn check(text: &str, secrets: &[&'static str]) -> Result<(), DotenvError> {
    let read = dotenvy::from_read_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    let read = read.map_err(|wrong| explain(text, &wrong))?;
    for &name in secrets {
        let mut written = text.lines().filter_map(|line| value_of(name, line));
        let mut read = read.iter().filter(|(key, _)| key == name);
        let same =
            read.all(|(_, value)| written.next().is_some_and(|line| is_written(value, line)));
        if !same || written.next().is_some() {
            return Err(DotenvError::Changed(name));
        }
    }
    Ok(())
}

/// The text after `name=`, if the line sets that variable.
fn value_of<'l>(name: &str, line: &'l str) -> Option<&'l str> {
    let line = line.trim_start();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (key, value) = line.split_once('=')?;
    (key.trim() == name).then_some(value)
}

/// Whether `written` is `value`, bare or in quotes, and no more than a comment
/// after it.
fn is_written(value: &str, written: &str) -> bool {
    let forms = [value.to_owned(), format!("'{value}'"), format!("\"{value}\"")];
    forms.iter().any(|form| {
        let rest = match form.is_empty() {
            true => Some(written),
            false => written.trim_start().strip_prefix(form.as_str()),
        };
        rest.is_some_and(|rest| {
            let after = rest.trim();
            after.is_empty() || (after.starts_with('#') && rest.starts_with([' ', '\t']))
        })
    })
}

/// Names the line that is wrong, without a word of what stands there.
fn explain(text: &str, wrong: &dotenvy::Error) -> DotenvError {
    let dotenvy::Error::LineParse(line, _) = wrong else { return DotenvError::Malformed(None) };
    // It may be the part of the line after the equals sign.
    let first = line.lines().next().unwrap_or_default();
    let mut lines = text.lines().zip(1..).filter(|(known, _)| known.ends_with(first));
    match (lines.next(), lines.next()) {
        (Some((_, number)), None) => DotenvError::Malformed(Some(number)),
        _ => DotenvError::Malformed(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), DotenvError> {
        super::check(text, &["FLUX_OPERATOR_TOKEN", "FLUX_BUYER_JWT_SECRET"])
    }

    #[test]
    fn a_secret_is_what_its_line_says_or_an_error() {
        for sound in [
            "",
            "FLUX_OPERATOR_TOKEN=\nFLUX_BUYER_JWT_SECRET=  # none yet\n",
            "FLUX_OPERATOR_TOKEN=s3cret",
            "export FLUX_OPERATOR_TOKEN = s3cret # the shop's\r\nOTHER=$HOME",
            "FLUX_OPERATOR_TOKEN='a$b\\c#d'\n#FLUX_OPERATOR_TOKEN=$x",
            "FLUX_OPERATOR_TOKEN=\"a b\"\nFLUX_BUYER_JWT_SECRET=a#b=",
            "FLUX_OPERATOR_TOKEN=one\nFLUX_OPERATOR_TOKEN='two'",
        ] {
            assert!(check(sound).is_ok(), "{sound:?}: {:?}", check(sound));
        }
        for changed in [
            "FLUX_OPERATOR_TOKEN=$ecret",
            "FLUX_OPERATOR_TOKEN=s3$cret",
            "FLUX_OPERATOR_TOKEN=\"s3$cret\"",
            "FLUX_OPERATOR_TOKEN=\"${s3cret}\"",
            "FLUX_OPERATOR_TOKEN=#s3cret",
            "FLUX_OPERATOR_TOKEN=s3\\$cret",
            "A=x\nexport FLUX_BUYER_JWT_SECRET=$A",
        ] {
            assert!(check(changed).is_err(), "{changed:?}");
        }
    }

    #[test]
    fn a_line_that_is_malformed_is_named_and_not_shown() {
        for bad in ["'s3cret", "s3cret two", "s3cret\\x", "\"s3$cret\""] {
            let file = format!("A=1\n\nFLUX_OPERATOR_TOKEN={bad}\nB=2\n");
            let wrong = check(&file).expect_err(bad).to_string();
            assert!(!wrong.contains("s3cret"), "{wrong}");
            assert!(wrong.ends_with("line 3"), "{bad}: {wrong}");
        }
    }
}
