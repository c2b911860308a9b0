//! The live page: its parts, joined into the one file that is served.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use sha2::{Digest, Sha256};

macro_rules! style {
    () => {
        include_str!("../../page/style.css")
    };
}

macro_rules! script {
    () => {
        concat!(
            include_str!("../../page/base.js"),
            include_str!("../../page/orders.js"),
            include_str!("../../page/items.js"),
            include_str!("../../page/hall.js"),
            include_str!("../../page/live.js"),
        )
    };
}

/// The page, which asks for nothing but this server's own calls.
pub(crate) const PAGE: &str = concat!(
    include_str!("../../page/head.html"),
    "<style>",
    style!(),
    "</style>\n",
    include_str!("../../page/body.html"),
    "<script>",
    script!(),
    "</script>\n</body>\n</html>\n",
);

/// What a browser lets it do: run this very script, wear this very style, and
/// speak to this server. Text never becomes markup.
pub(crate) fn may() -> HeaderValue {
    static MAY: LazyLock<HeaderValue> = LazyLock::new(|| {
        let hash = |part: &str| STANDARD.encode(Sha256::digest(part));
        let (script, style) = (hash(script!()), hash(style!()));
        let may = format!(
            "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; \
             connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
        );
        HeaderValue::try_from(may).expect("hashes are a header's value")
    });
    MAY.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file_that_asks_for_no_other() {
        let count = |part: &str| PAGE.matches(part).count();
        for tag in ["<style>", "</style>", "<script>", "</script>", "</html>"] {
            assert_eq!(count(tag), 1, "{tag}");
        }
        for outside in ["src=", "@import", "url(", "https:", "<iframe", "<img", "import("] {
            assert_eq!(count(outside), 0, "{outside}");
        }
        // The icon's namespace, which nobody asks for.
        assert_eq!((count("http:"), count("<link"), count("href=\"data:")), (1, 1, 1));
    }

    #[test]
    fn a_browser_is_told_to_run_nothing_else() {
        let may = may();
        let may = may.to_str().expect("ASCII");
        assert!(!may.contains("unsafe"), "{may}");
        assert_eq!(may.matches("'sha256-").count(), 2);
        // Attributes of markup would need more than hashes.
        let markup =
            concat!(include_str!("../../page/head.html"), include_str!("../../page/body.html"));
        let inline =
            |word: &str| word.starts_with("style=") || word.starts_with("on") && word.contains('=');
        assert_eq!(markup.split_whitespace().find(|word| inline(word)), None);
    }
}
