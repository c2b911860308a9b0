//! The places in a file that mutants are in, and all that a switch must enclose there.
//! `cargo mutants` names an operator by its token alone: here its operands are found.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr, UnOp};

use crate::consts::Const;
use crate::{Genre, Position, Span};

/// Bytes of the source.
pub type Bytes = Range<usize>;

pub enum Place {
    /// The statements of a function.
    Body { at: usize },
    /// `left op right`.
    Binary { whole: Bytes, left: Bytes, right: Bytes, assigns: bool },
    /// `op operand`.
    Unary { whole: Bytes, operand: Bytes },
    /// An arm without a guard; the end of its pattern.
    Arm { pattern: Bytes },
    /// The expression after `if`, and whether it binds names.
    Guard { whole: Bytes, binds: bool },
    /// A field of a literal with a base, with its comma.
    Field { whole: Bytes, field: Bytes },
}

pub struct Found {
    /// How many places enclose it.
    pub depth: usize,
    pub place: Result<Place, &'static str>,
}

pub struct Places {
    found: BTreeMap<(Span, u8), Found>,
    /// The word `const` of functions that need not be.
    pub const_tokens: Vec<Bytes>,
}

impl Places {
    pub fn take(&mut self, genre: Genre, span: Span) -> Option<Found> {
        self.found.remove(&(span, genre as u8))
    }
}

/// The places of a file. Functions with these names must be `const`.
pub fn find(source: &str, fixed: &BTreeSet<String>) -> syn::Result<Places> {
    let file = syn::parse_file(source)?;
    let mut lines = vec![0];
    lines.extend(source.match_indices('\n').map(|(at, _)| at + 1));
    let places = Places { found: BTreeMap::new(), const_tokens: Vec::new() };
    let mut finder = Finder { source, lines, fixed, depth: 0, constant: None, places };
    finder.visit_file(&file);
    Ok(finder.places)
}

struct Finder<'a> {
    source: &'a str,
    /// Where each line starts.
    lines: Vec<usize>,
    fixed: &'a BTreeSet<String>,
    depth: usize,
    /// Why nothing here can be asked at run time.
    constant: Option<&'static str>,
    places: Places,
}

impl Finder<'_> {
    fn byte(&self, at: proc_macro2::LineColumn) -> usize {
        let start = self.lines[at.line - 1];
        let line = &self.source[start..];
        start + line.char_indices().nth(at.column).map_or(line.len(), |(byte, _)| byte)
    }

    fn bytes(&self, span: proc_macro2::Span) -> Bytes {
        self.byte(span.start())..self.byte(span.end())
    }

    fn add(&mut self, genre: Genre, span: Span, place: Result<Place, &'static str>) {
        let place = match self.constant {
            Some(reason) => Err(reason),
            None => place,
        };
        self.places.found.insert((span, genre as u8), Found { depth: self.depth, place });
    }

    fn deeper(&mut self, visit: impl FnOnce(&mut Self)) {
        self.depth += 1;
        visit(self);
        self.depth -= 1;
    }

    fn function(
        &mut self,
        signature: &syn::Signature,
        block: &syn::Block,
        visit: impl FnOnce(&mut Self),
    ) {
        let outside = self.constant.take();
        if let Some(token) = signature.constness {
            if self.fixed.contains(&signature.ident.to_string()) {
                self.constant = Some("const fn");
            } else {
                let bytes = self.bytes(token.span());
                self.places.const_tokens.push(bytes);
            }
        }
        if let (Some(first), Some(last)) = (block.stmts.first(), block.stmts.last()) {
            let span = Span { start: start(first.span()), end: end(last.span()) };
            let mut output = Opaque::default();
            output.visit_return_type(&signature.output);
            let at = self.byte(first.span().start());
            let place = if output.found { Err("impl Trait") } else { Ok(Place::Body { at }) };
            self.add(Genre::FnValue, span, place);
        }
        self.deeper(visit);
        self.constant = outside;
    }
}

impl Const for Finder<'_> {
    fn constant(&mut self, reason: &'static str, visit: impl FnOnce(&mut Self)) {
        let outside = self.constant.replace(reason);
        visit(self);
        self.constant = outside;
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    crate::consts::visit_consts!();

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block, |it| visit::visit_item_fn(it, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block, |it| visit::visit_impl_item_fn(it, item));
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block, |it| visit::visit_trait_item_fn(it, item));
        }
    }

    fn visit_expr_binary(&mut self, expr: &'ast syn::ExprBinary) {
        let assigns = matches!(
            expr.op,
            BinOp::AddAssign(_)
                | BinOp::SubAssign(_)
                | BinOp::MulAssign(_)
                | BinOp::DivAssign(_)
                | BinOp::RemAssign(_)
                | BinOp::BitXorAssign(_)
                | BinOp::BitAndAssign(_)
                | BinOp::BitOrAssign(_)
                | BinOp::ShlAssign(_)
                | BinOp::ShrAssign(_)
        );
        let place = if binds(&expr.left) || binds(&expr.right) {
            Err("binds names")
        } else {
            Ok(Place::Binary {
                whole: self.bytes(expr.span()),
                left: self.bytes(expr.left.span()),
                right: self.bytes(expr.right.span()),
                assigns,
            })
        };
        self.add(Genre::BinaryOperator, of(expr.op.span()), place);
        self.deeper(|it| visit::visit_expr_binary(it, expr));
    }

    fn visit_expr_unary(&mut self, expr: &'ast syn::ExprUnary) {
        if matches!(expr.op, UnOp::Not(_) | UnOp::Neg(_)) {
            let (whole, operand) = (self.bytes(expr.span()), self.bytes(expr.expr.span()));
            self.add(Genre::UnaryOperator, of(expr.op.span()), Ok(Place::Unary { whole, operand }));
        }
        self.deeper(|it| visit::visit_expr_unary(it, expr));
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let pattern = self.bytes(arm.pat.span());
        self.add(Genre::MatchArm, of(arm.span()), Ok(Place::Arm { pattern }));
        if let Some((_, guard)) = &arm.guard {
            let place = Place::Guard { whole: self.bytes(guard.span()), binds: binds(guard) };
            self.add(Genre::MatchArmGuard, of(guard.span()), Ok(place));
        }
        self.deeper(|it| visit::visit_arm(it, arm));
    }

    fn visit_expr_struct(&mut self, expr: &'ast syn::ExprStruct) {
        if expr.rest.is_some() {
            for pair in expr.fields.pairs() {
                let mut span = of(pair.value().span());
                let mut field = self.bytes(pair.value().span());
                if let Some(comma) = pair.punct() {
                    span.end = end(comma.span());
                    field.end = self.byte(comma.span().end());
                }
                let whole = self.bytes(expr.span());
                self.add(Genre::StructField, span, Ok(Place::Field { whole, field }));
            }
        }
        self.deeper(|it| visit::visit_expr_struct(it, expr));
    }
}

/// Finds a type without a name, which two values must share.
#[derive(Default)]
struct Opaque {
    found: bool,
}

impl Visit<'_> for Opaque {
    fn visit_type_impl_trait(&mut self, _: &syn::TypeImplTrait) {
        self.found = true;
    }
}

/// Whether names of a `let` in it are seen outside of it.
fn binds(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => binds(&binary.left) || binds(&binary.right),
        _ => false,
    }
}

fn of(span: proc_macro2::Span) -> Span {
    Span { start: start(span), end: end(span) }
}

fn start(span: proc_macro2::Span) -> Position {
    let start = span.start();
    Position { line: start.line, column: start.column + 1 }
}

fn end(span: proc_macro2::Span) -> Position {
    let end = span.end();
    Position { line: end.line, column: end.column + 1 }
}
