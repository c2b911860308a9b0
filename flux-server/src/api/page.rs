//! The live page, its parts joined into the one file that is served, the pulse
//! it shows, and the interface's description.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::CONTENT_SECURITY_POLICY;
use sha2::{Digest, Sha256};

use crate::app::RequestPermit;
use crate::http::problem::Problem;
use crate::http::response::{self, Answer};

const OPEN_API: &str = include_str!("../../openapi.json");

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
const PAGE: &str = concat!(
    include_str!("../../page/head.html"),
    "<style>",
    style!(),
    "</style>\n",
    include_str!("../../page/body.html"),
    "<script>",
    script!(),
    "</script>\n</body>\n</html>\n",
);

/// `GET /openapi.json`.
pub(crate) fn open_api() -> Answer {
    response::bytes("application/json", OPEN_API)
}

/// `GET /`.
pub(crate) fn page() -> Answer {
    let mut answer = response::bytes("text/html; charset=utf-8", PAGE);
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy());
    answer
}

/// `GET /pulse`.
pub(crate) fn pulse(app: &RequestPermit) -> Result<Answer, Problem> {
    Ok(app.hub.pulse().into_answer(app.stream()?))
}

/// The policy of browsers for the page: run this very script, wear this very style, and
/// speak to this server. Text never becomes markup.
fn policy() -> HeaderValue {
    static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
        let hash = |part: &str| STANDARD.encode(Sha256::digest(part));
        let (script, style) = (hash(script!()), hash(style!()));
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; \
             connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
        );
        HeaderValue::try_from(policy).expect("hashes are a header's value")
    });
    POLICY.clone()
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
        let policy = policy();
        let policy = policy.to_str().expect("ASCII");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(policy.matches("'sha256-").count(), 2);
        // Attributes of markup would need more than hashes.
        let markup =
            concat!(include_str!("../../page/head.html"), include_str!("../../page/body.html"));
        let inline =
            |word: &str| word.starts_with("style=") || word.starts_with("on") && word.contains('=');
        assert_eq!(markup.split_whitespace().find(|word| inline(word)), None);
    }
}
