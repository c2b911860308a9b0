//! The doors of G1 to G9: the tables that lead from each guarantee to the
//! functions that enforce it and to the checks that would catch its loss, compared
//! with the code, and the tags in the code compared with the tables. And the page of
//! promises: the tests it names are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The tables, each with the folder its files are named from.
const TABLES: [(&str, &str); 2] = [
    ("flux-core/src/protocol/mod.rs", "flux-core/src"),
    ("flux-aws/src/dynamodb/design.md", "flux-aws/src"),
];
const CHECKS: &str = "flux-core/src/conformance";
const PROMISES: &str = "flux-core/src/promises.md";

#[derive(Debug)]
struct Row {
    guarantee: String,
    /// Function and file.
    doors: Vec<(String, PathBuf)>,
    checks: Vec<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Rows like ``| G1 no oversell | `judge` in `a.rs`, … | `a_check`, … |``.
fn rows(table: &str, folder: &str) -> Vec<Row> {
    let text = fs::read_to_string(root().join(table)).expect(table);
    let lines = text.lines().filter_map(|line| line.trim_start_matches("//! ").strip_prefix("| G"));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split('|').collect();
            let guarantee = format!("G{}", line.chars().next().expect("a digit"));
            let names = quoted(cells[1]);
            let doors = names.chunks(2).map(|pair| match pair {
                [function, file] => (function.clone(), root().join(folder).join(file)),
                _ => panic!("{table}: {line}: functions and files come in pairs"),
            });
            Row { guarantee, doors: doors.collect(), checks: quoted(cells[2]) }
        })
        .collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The name of the function that a line defines.
fn defined(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_header = before.split_whitespace().all(|word| {
        word.starts_with("pub") || ["async", "const", "super)", "crate)"].contains(&word)
    });
    let name = after.split(['(', '<']).next().unwrap_or_default();
    (is_header && !name.is_empty()).then_some(name)
}

/// The tags of a file: guarantee, and the function it stands in or before.
fn tags(file: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(file).expect("a file");
    let mut tags = Vec::new();
    let (mut inside, mut waiting) = ((String::new(), 0), Vec::new());
    for line in text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")) {
        let indent = line.len() - line.trim_start().len();
        if let Some(name) = defined(line) {
            tags.extend(waiting.drain(..).map(|tag| (tag, name.to_owned())));
            inside = (name.to_owned(), indent);
        }
        if let Some(tag) = line.trim_start().strip_prefix("// G") {
            let (digits, _) = tag.split_once(": ").expect("a tag is `// G1: …`");
            for guarantee in digits.split(", G").map(|digit| format!("G{digit}")) {
                match indent > inside.1 && !inside.0.is_empty() {
                    true => tags.push((guarantee, inside.0.clone())),
                    false => waiting.push(guarantee),
                }
            }
        }
        if line.trim_end() == format!("{}}}", " ".repeat(inside.1)) {
            inside.0.clear();
        }
    }
    assert!(waiting.is_empty(), "{}: a tag before nothing", file.display());
    tags
}

/// The checks of the conformance suite, all in one text.
fn checks() -> String {
    let mut files = Vec::new();
    rust_files(&root().join(CHECKS), &mut files);
    files.iter().map(|file| fs::read_to_string(file).expect("a file")).collect()
}

#[test]
fn every_test_that_is_promised_is_there() {
    let page = fs::read_to_string(root().join(PROMISES)).expect(PROMISES);
    let checks = checks();
    let sections: Vec<&str> = page.split("\n## G").skip(1).collect();
    assert_eq!(sections.len(), 9, "{PROMISES}");
    for section in sections {
        let quoted = quoted(section);
        let named: Vec<_> = quoted.iter().filter_map(|name| name.split_once("::")).collect();
        assert!(named.len() >= 3, "{PROMISES}: G{section}");
        for (place, test) in named {
            let is_there = match place {
                "conformance" => checks.contains(&format!("fn {test}<")),
                file => {
                    let text = fs::read_to_string(root().join(file)).expect(file);
                    [format!("fn {test}("), format!("\"{test}\"")]
                        .iter()
                        .any(|it| text.contains(it))
                }
            };
            assert!(is_there, "{PROMISES}: {place} has no test {test}");
        }
    }
}

#[test]
fn every_row_names_what_exists_and_every_tag_has_its_row() {
    let checks = checks();
    for (table, folder) in TABLES {
        let rows = rows(table, folder);
        let guarantees: BTreeSet<&str> = rows.iter().map(|row| row.guarantee.as_str()).collect();
        assert!(rows.len() >= 4, "{table} has no rows");
        if folder.starts_with("flux-core") {
            assert_eq!(guarantees.len(), 9, "{table}: {guarantees:?}");
        }
        for row in &rows {
            assert!(!row.doors.is_empty() && !row.checks.is_empty(), "{row:?}");
            for check in &row.checks {
                assert!(checks.contains(&format!("fn {check}<")), "{table}: no check {check}");
            }
            for (function, file) in &row.doors {
                let tagged = (row.guarantee.clone(), function.clone());
                assert!(
                    tags(file).contains(&tagged),
                    "{table}: {}: {function} has no tag of {}",
                    file.display(),
                    row.guarantee
                );
            }
        }
        let mut files = Vec::new();
        rust_files(&root().join(folder), &mut files);
        let is_test = |file: &PathBuf| {
            file.starts_with(root().join(CHECKS)) || file.to_string_lossy().ends_with("tests.rs")
        };
        for file in files.iter().filter(|file| !is_test(file)) {
            for (guarantee, function) in tags(file) {
                let door = (function, file.clone());
                let has_row = |row: &Row| row.guarantee == guarantee && row.doors.contains(&door);
                assert!(rows.iter().any(has_row), "{table}: {guarantee} has no row for {door:?}");
            }
        }
    }
}
