//! How a command fails: what was tried and why it did not work, what to do, and the exit code. Rendered once, in
//! [`crate::terminal`].

use super::exit::Exit;

#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
    /// What lies behind it, outermost first.
    pub causes: Vec<String>,
    /// What to do about it.
    pub hints: Vec<String>,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failure { exit, message: message.into(), causes: Vec::new(), hints: Vec::new() }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Failure::new(Exit::Usage, message)
    }

    pub fn environment(message: impl Into<String>) -> Self {
        Failure::new(Exit::Environment, message)
    }

    /// With the error and all that it names as its source.
    pub fn from_error(exit: Exit, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut failure = Failure::new(exit, error.to_string());
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many errors repeat their source in their own text.
            if !failure.message.contains(&text) {
                failure.causes.push(text);
            }
            next = cause.source();
        }
        failure
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

/// The nearest of some names, for "did you mean".
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.into_iter().map(|name| (strsim::jaro_winkler(wanted, name), name));
    scored.filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_another_word_is_not() {
        let known = ["wrong-target-port", "slow-backend", "sidecar-race"];
        assert_eq!(nearest("wrong-targetport", known), Some("wrong-target-port"));
        assert_eq!(nearest("slow-backnd", known), Some("slow-backend"));
        assert_eq!(nearest("zebra", known), None);
    }
}
