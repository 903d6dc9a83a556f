//! Why a command did not do what it was to do.

/// The class of an error, which is the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The service refused the request.
    Refused = 1,
    /// The command line, the environment or a file is wrong.
    Usage = 2,
    /// The service was not reached, or has a fault of its own.
    Unreachable = 3,
    /// The token is not accepted, or does not allow this.
    NotAllowed = 4,
    /// The custom CSR failed, or is still pending after the wait.
    NotMade = 5,
}

/// An error, with a line for each thing that is wrong.
#[derive(Debug)]
pub struct Failure {
    pub class: Class,
    pub lines: Vec<String>,
}

impl Failure {
    /// An error of one line.
    pub fn new(class: Class, line: impl Into<String>) -> Self {
        Self { class, lines: vec![line.into()] }
    }

    /// The command line, the environment or a file is wrong.
    pub fn usage(line: impl Into<String>) -> Self {
        Self::new(Class::Usage, line)
    }
}
