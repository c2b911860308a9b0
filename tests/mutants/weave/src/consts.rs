//! Where code is evaluated by the compiler, so that no switch can be asked.
//!
//! A `const fn` gets its switches by ceasing to be one, unless its name is used in such a
//! place somewhere in the tree: names are all that is compared, so some stay for nothing.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// A visitor that is told what is constant.
pub trait Const {
    fn constant(&mut self, reason: &'static str, visit: impl FnOnce(&mut Self));
}

/// The methods of a `Visit` that is `Const`, without those about functions.
macro_rules! visit_consts {
    () => {
        fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
            self.constant("constant", |it| syn::visit::visit_item_const(it, item));
        }

        fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
            self.constant("static", |it| syn::visit::visit_item_static(it, item));
        }

        fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
            self.constant("constant", |it| syn::visit::visit_impl_item_const(it, item));
        }

        fn visit_trait_item_const(&mut self, item: &'ast syn::TraitItemConst) {
            self.constant("constant", |it| syn::visit::visit_trait_item_const(it, item));
        }

        fn visit_variant(&mut self, variant: &'ast syn::Variant) {
            self.constant("constant", |it| syn::visit::visit_variant(it, variant));
        }

        fn visit_expr_const(&mut self, expr: &'ast syn::ExprConst) {
            self.constant("constant", |it| syn::visit::visit_expr_const(it, expr));
        }

        fn visit_type_array(&mut self, array: &'ast syn::TypeArray) {
            self.constant("constant", |it| syn::visit::visit_type_array(it, array));
        }

        fn visit_generic_argument(&mut self, argument: &'ast syn::GenericArgument) {
            if let syn::GenericArgument::Const(_) = argument {
                self.constant("constant", |it| syn::visit::visit_generic_argument(it, argument));
            } else {
                syn::visit::visit_generic_argument(self, argument);
            }
        }

        fn visit_expr_repeat(&mut self, expr: &'ast syn::ExprRepeat) {
            self.visit_expr(&expr.expr);
            self.constant("constant", |it| it.visit_expr(&expr.len));
        }
    };
}
pub(crate) use visit_consts;

/// The names that are used where the compiler evaluates, directly or by way of functions.
pub fn fixed_names(tree: &Path) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let mut names = Names::default();
    for path in sources(tree)? {
        // What can't be read is no part of the workspace, or cargo will say so.
        if let Ok(file) = syn::parse_file(&fs::read_to_string(&path)?) {
            names.visit_file(&file);
        }
    }
    let Names { mut used, mut functions, .. } = names;
    loop {
        let (fixed, rest): (Vec<_>, Vec<_>) =
            functions.into_iter().partition(|(name, _)| used.contains(name));
        if fixed.is_empty() {
            return Ok(used);
        }
        used.extend(fixed.into_iter().flat_map(|(_, uses)| uses));
        functions = rest;
    }
}

fn sources(folder: &Path) -> Result<Vec<std::path::PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden || path.ends_with("target") || path.ends_with("node_modules") {
            continue;
        }
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

#[derive(Default)]
struct Names {
    inside: bool,
    used: BTreeSet<String>,
    /// Each `const fn` with the names in it.
    functions: Vec<(String, BTreeSet<String>)>,
}

impl Names {
    fn function(&mut self, signature: &syn::Signature, visit: impl FnOnce(&mut Self)) {
        if signature.constness.is_none() {
            let inside = std::mem::replace(&mut self.inside, false);
            visit(self);
            self.inside = inside;
            return;
        }
        let mut within = Self { inside: true, ..Self::default() };
        visit(&mut within);
        self.functions.push((signature.ident.to_string(), within.used));
        self.functions.append(&mut within.functions);
    }

    fn tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    self.used.insert(name.to_string());
                }
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }
}

impl Const for Names {
    fn constant(&mut self, _: &'static str, visit: impl FnOnce(&mut Self)) {
        let outside = std::mem::replace(&mut self.inside, true);
        visit(self);
        self.inside = outside;
    }
}

impl<'ast> Visit<'ast> for Names {
    visit_consts!();

    fn visit_ident(&mut self, name: &'ast proc_macro2::Ident) {
        if self.inside {
            self.used.insert(name.to_string());
        }
    }

    /// What a macro makes of its tokens is not known.
    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        self.tokens(item.mac.tokens.clone());
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        if self.inside {
            self.tokens(item.tokens.clone());
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, |it| visit::visit_item_fn(it, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, |it| visit::visit_impl_item_fn(it, item));
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.function(&item.sig, |it| visit::visit_trait_item_fn(it, item));
    }
}
