//! The template of the page: the built-in one, or the operator's.

use std::sync::Arc;

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

/// The built-in page.
const OWN: &str = include_str!("page.html");
/// The name of the template in errors.
const NAME: &str = "the template";
/// The placeholders that a page must have.
const NEEDED: [&str; 7] = ["state", "names", "note", "csr", "csr_url", "post_url", "errors"];

/// The state of a link's page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The page shows the CSR and takes a certificate.
    Open,
    /// A certificate was just stored.
    Stored,
    /// The link is used, revoked, expired or unknown.
    Over,
}

/// The values of the placeholders. All of them are escaped.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Values<'a> {
    /// The state of the page.
    pub state: State,
    /// The names that the certificate is for.
    pub names: &'a [String],
    /// The tenant's note; empty if there is none.
    pub note: &'a str,
    /// The CSR, PEM.
    pub csr: &'a str,
    /// The URL of its file.
    pub csr_url: &'a str,
    /// The name of the file.
    pub csr_file: &'a str,
    /// Where the form is sent.
    pub post_url: &'a str,
    /// Why the certificate was refused: each a sentence.
    pub errors: &'a [String],
    /// Why clients may reject the certificate that was stored: each a sentence.
    pub warnings: &'a [String],
    /// The text that was sent.
    pub certificate: &'a str,
    /// When the link expires, or the certificate.
    pub until: &'a str,
    /// The `nonce` of the `style` element, which browsers ignore without it.
    pub nonce: &'a str,
}

/// A page with placeholders, in the syntax of Jinja.
#[derive(Debug, Clone)]
pub struct Template(Arc<Environment<'static>>);

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is not in the syntax of Jinja.
    #[error("it is not a template: {0}")]
    Syntax(String),
    /// It lacks these.
    #[error("it lacks the placeholders {0}: a page needs {needed}", needed = NEEDED.join(", "))]
    Lacks(String),
    /// It has no field for the certificate.
    #[error("its form lacks a field named \"certificate\" (text) or \"file\": the open page needs one of them")]
    NoField,
}

impl Default for Template {
    /// The built-in page.
    #[expect(clippy::expect_used, reason = "a test parses it")]
    fn default() -> Self {
        Self::parse(OWN).expect("our own page is a template")
    }
}

impl Template {
    /// Parses a page.
    ///
    /// # Errors
    ///
    /// [`TemplateError`] if it is no template, or lacks a placeholder.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        // To find a misspelled placeholder here, not when somebody opens a link.
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.add_template_owned(NAME, text.to_owned()).map_err(|error| TemplateError::Syntax(error.to_string()))?;
        let template = Self(Arc::new(environment));
        let used = template.0.get_template(NAME).map(|template| template.undeclared_variables(false)).unwrap_or_default();
        let lacks: Vec<_> = NEEDED.into_iter().filter(|name| !used.contains(*name)).collect();
        if !lacks.is_empty() {
            return Err(TemplateError::Lacks(lacks.join(", ")));
        }
        // With values as they occur: what fails here would fail when somebody opens a link.
        let (names, errors) = (["www.example.com".to_owned()], ["An error.".to_owned()]);
        let over = Values::default();
        let stored = Values { state: State::Stored, names: &names, until: "2026-12-31 23:59 UTC", ..over };
        let open = Values { state: State::Open, csr: "CSR", csr_url: "a/csr", csr_file: "a.csr", post_url: "a", ..stored };
        let refused = Values { note: "A note.", errors: &errors, certificate: "A text.", ..open };
        for values in [over, stored, Values { warnings: &errors, ..stored }, refused] {
            template.render(&values).map_err(TemplateError::Syntax)?;
        }
        let page = template.render(&open).map_err(TemplateError::Syntax)?;
        let has_field = ["certificate", "file"]
            .iter()
            .any(|name| ["\"", "'", ""].iter().any(|quote| page.contains(&format!("name={quote}{name}{quote}"))));
        if has_field { Ok(template) } else { Err(TemplateError::NoField) }
    }

    /// The page with these values.
    ///
    /// # Errors
    ///
    /// What is wrong with the template.
    pub fn render(&self, values: &Values<'_>) -> Result<String, String> {
        self.0.get_template(NAME).and_then(|template| template.render(values)).map_err(|error| error.to_string())
    }
}

impl Default for Values<'_> {
    /// The values for a link that has ended.
    fn default() -> Self {
        Self {
            state: State::Over,
            names: &[],
            note: "",
            csr: "",
            csr_url: "",
            csr_file: "",
            post_url: "",
            errors: &[],
            warnings: &[],
            certificate: "",
            until: "",
            nonce: "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_page_shows_each_value_escaped() {
        let names = ["<b>.example".to_owned()];
        let errors = ["\"><script>".to_owned()];
        let values = Values { names: &names, errors: &errors, note: "<i>&", csr: "</textarea>", state: State::Open, ..Values::default() };
        let page = Template::default().render(&values).unwrap();
        for raw in ["<b>", "<script", "<i>", "</textarea></textarea>"] {
            assert!(!page.contains(raw), "{raw}");
        }
        assert!(page.contains("&lt;b&gt;.example") && page.contains("&lt;i&gt;&amp;"));
    }

    #[test]
    fn a_page_that_lacks_a_placeholder_or_misspells_one_is_refused() {
        let without_csr = OWN.replace("{{ csr }}", "");
        assert_eq!(Template::parse(&without_csr).unwrap_err(), TemplateError::Lacks("csr".into()));
        assert!(matches!(Template::parse(&format!("{OWN}{{{{ csrr }}}}")), Err(TemplateError::Syntax(_))));
        assert!(matches!(Template::parse(&format!("{OWN}{{% if %}}")), Err(TemplateError::Syntax(_))));
        let without_fields = OWN.replace("name=\"file\"", "").replace("name=\"certificate\"", "");
        assert_eq!(Template::parse(&without_fields).unwrap_err(), TemplateError::NoField);
        assert!(Template::parse("").is_err() && Template::parse("<h1>Hello</h1>").is_err());
    }
}
