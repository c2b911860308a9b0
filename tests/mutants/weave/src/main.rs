//! Puts mutants behind switches: reads a list of them as JSON, of files as they are in one
//! tree, and writes these files into a copy of it.
//!
//! `weave FROM TO < mutants.json > answer.json`. The answer has the text of the code that
//! stands for each mutant, or why it can't have a switch.

mod consts;
mod edits;
mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use std::{env, fs, io};

use serde::{Deserialize, Serialize};

/// A mutant, in the words of `cargo mutants --list --json`.
#[derive(Debug, Deserialize)]
struct Mutant {
    number: u32,
    file: String,
    genre: Genre,
    span: Span,
    replacement: String,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
enum Genre {
    FnValue,
    BinaryOperator,
    UnaryOperator,
    MatchArm,
    MatchArmGuard,
    StructField,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
struct Span {
    start: Position,
    end: Position,
}

/// Both count from one; columns are in characters.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
struct Position {
    line: usize,
    column: usize,
}

#[derive(Default, Serialize)]
struct Answer {
    woven: Vec<u32>,
    /// Number, and why not.
    refused: BTreeMap<u32, String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [from, to] = &arguments[..] else { return Err("weave FROM TO".into()) };
    let mutants: Vec<Mutant> = serde_json::from_reader(io::stdin())?;
    let mut files: BTreeMap<&str, Vec<&Mutant>> = BTreeMap::new();
    for mutant in &mutants {
        files.entry(&mutant.file).or_default().push(mutant);
    }
    let fixed = consts::fixed_names(Path::new(from))?;
    let mut answer = Answer::default();
    for (file, mutants) in files {
        let source = fs::read_to_string(Path::new(from).join(file))?;
        let woven = weave_file(&source, &mutants, &fixed, &mut answer)?;
        // A file that stays as it is is not compiled again.
        let path = Path::new(to).join(file);
        fs::create_dir_all(path.parent().expect("a file is in a folder"))?;
        if fs::read_to_string(&path).ok().as_ref() != Some(&woven) {
            fs::write(path, woven)?;
        }
    }
    serde_json::to_writer(io::stdout(), &answer)?;
    Ok(())
}

fn weave_file(
    source: &str,
    mutants: &[&Mutant],
    fixed: &BTreeSet<String>,
    answer: &mut Answer,
) -> Result<String, Box<dyn Error>> {
    let mut places = places::find(source, fixed)?;
    let mut edits = edits::Edits::new(source);
    // Of one place at once: a place has one `else`.
    let mut groups: BTreeMap<(Span, u8), Vec<&Mutant>> = BTreeMap::new();
    for mutant in mutants {
        groups.entry((mutant.span, mutant.genre as u8)).or_default().push(mutant);
    }
    for ((span, _), group) in groups {
        let genre = group[0].genre;
        let refusal = match places.take(genre, span) {
            None => "not found".to_owned(),
            Some(place) => match place.place {
                Err(reason) => reason.to_owned(),
                Ok(found) => {
                    edits.switch(&found, place.depth, &group, answer);
                    continue;
                }
            },
        };
        for mutant in group {
            answer.refused.insert(mutant.number, refusal.clone());
        }
    }
    for range in places.const_tokens {
        edits.delete(range);
    }
    Ok(edits.apply())
}
