//! The two prefixes under which the same API answers.

/// A prefix, as the routes below it read it.
#[derive(Debug, Clone, Copy)]
pub struct Prefix(pub &'static str);

/// The canonical one, in the document.
pub const CANONICAL: &str = "/api/v4";

/// The one that the official clients use.
pub const CLIENT: &str = "/client/v4";
