//! The text of the switches. All of it is inserted around code that stays where it is, so
//! switches nest; the code of a mutant is the plain original, as one is on at a time.
//!
//! `/*17<*/` and `/*>17*/` enclose what the mutant 17 has of its own: what the compiler
//! finds wrong in there is wrong with the mutant.

use std::fmt::Write;

use crate::places::{Bytes, Place};
use crate::{Answer, Mutant};

pub struct Edits<'a> {
    source: &'a str,
    edits: Vec<Edit>,
}

struct Edit {
    at: usize,
    until: usize,
    /// Of two at one place: what closes comes first, innermost first; then what opens,
    /// outermost first.
    order: isize,
    text: String,
}

impl<'a> Edits<'a> {
    pub fn new(source: &'a str) -> Self {
        Self { source, edits: Vec::new() }
    }

    pub fn delete(&mut self, bytes: Bytes) {
        self.edits.push(Edit { at: bytes.start, until: bytes.end, order: 0, text: String::new() });
    }

    /// Puts mutants of one place behind their switches.
    pub fn switch(&mut self, place: &Place, depth: usize, group: &[&Mutant], answer: &mut Answer) {
        match place {
            Place::Body { at } => {
                let mut text = String::new();
                for mutant in group {
                    let own = Self::own(mutant, &format!("return {};", mutant.replacement));
                    write!(text, "if {} {{ {own} }} ", is(mutant)).expect("a string takes all");
                }
                self.open(*at, depth, text);
            }
            Place::Arm { pattern } => {
                let mutant = group[0];
                let guard = Self::own(mutant, &format!("!{}", is(mutant)));
                self.open(pattern.end, depth, format!(" if {guard}"));
            }
            Place::Guard { whole, binds: true } => {
                // Without its names the code of the arm means nothing.
                let (never, always): (Vec<&Mutant>, Vec<&Mutant>) =
                    group.iter().copied().partition(|mutant| mutant.replacement == "false");
                for mutant in always {
                    answer.refused.insert(mutant.number, "binds names".to_owned());
                }
                let Some(mutant) = never.first() else { return };
                let guard = Self::own(mutant, &format!("!{}", is(mutant)));
                self.open(whole.start, depth, format!("{guard} && "));
                answer.woven.push(mutant.number);
                return;
            }
            Place::Guard { whole, binds: false } => {
                self.choose(whole, depth, group, |mutant| mutant.replacement.clone());
            }
            Place::Binary { whole, left, right, assigns } => {
                let (left, right) = (&self.source[left.clone()], &self.source[right.clone()]);
                self.choose(whole, depth, group, |mutant| {
                    let operator = &mutant.replacement;
                    if *assigns {
                        format!("{left} {operator} ({right});")
                    } else {
                        format!("({left}) {operator} ({right})")
                    }
                });
            }
            Place::Unary { whole, operand } => {
                let operand = &self.source[operand.clone()];
                self.choose(whole, depth, group, |_| operand.to_owned());
            }
            Place::Field { whole, field } => {
                let before = &self.source[whole.start..field.start];
                let after = &self.source[field.end..whole.end];
                self.choose(whole, depth, group, |_| format!("{before}{after}"));
            }
        }
        answer.woven.extend(group.iter().map(|mutant| mutant.number));
    }

    fn choose(
        &mut self,
        whole: &Bytes,
        depth: usize,
        group: &[&Mutant],
        code: impl Fn(&Mutant) -> String,
    ) {
        let mut text = "(".to_owned();
        for mutant in group {
            let own = Self::own(mutant, &code(mutant));
            write!(text, "if {} {{ {own} }} else ", is(mutant)).expect("a string takes all");
        }
        text.push_str("{ ");
        self.open(whole.start, depth, text);
        let order = -1 - isize::try_from(depth).expect("code is not that deep");
        self.edits.push(Edit { at: whole.end, until: whole.end, order, text: " })".to_owned() });
    }

    fn open(&mut self, at: usize, depth: usize, text: String) {
        let order = 1 + isize::try_from(depth).expect("code is not that deep");
        self.edits.push(Edit { at, until: at, order, text });
    }

    fn own(mutant: &Mutant, code: &str) -> String {
        let number = mutant.number;
        format!("/*{number}<*/ {code} /*>{number}*/")
    }

    pub fn apply(mut self) -> String {
        self.edits.sort_by_key(|edit| (edit.at, edit.order));
        let mut woven = String::with_capacity(self.source.len() * 2);
        let mut at = 0;
        for edit in &self.edits {
            woven.push_str(&self.source[at..edit.at]);
            woven.push_str(&edit.text);
            at = edit.until;
        }
        woven.push_str(&self.source[at..]);
        woven
    }
}

fn is(mutant: &Mutant) -> String {
    format!("::mutant_switch::is({})", mutant.number)
}
