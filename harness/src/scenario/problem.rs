//! Mistakes in scenario files: where they are, what is wrong, what to write instead.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode, SourceSpan};

/// A stretch of a file, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: usize,
    length: usize,
    /// Line and column (from 1) where no byte offset was to be had; resolved against the text when shown.
    line_column: Option<(usize, usize)>,
}

impl Span {
    pub fn new(start: usize, length: usize) -> Self {
        Span { start, length, line_column: None }
    }

    pub fn at_line_column(line: usize, column: usize) -> Self {
        Span { start: 0, length: 0, line_column: Some((line, column)) }
    }

    /// Only the first line of what it covers: a block of text is pointed at, not repeated.
    fn in_text(self, text: &str) -> SourceSpan {
        let start = match self.line_column {
            None => self.start,
            Some((line, column)) => {
                let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
                let rest = text.get(before..).unwrap_or("");
                before + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.trim_end().len(), |(at, _)| at)
            }
        };
        let start = start.min(text.trim_end().len());
        let covered = text.get(start..(start + self.length).min(text.len())).unwrap_or("");
        let first_line = covered.lines().next().unwrap_or("").trim_end();
        (start, first_line.len()).into()
    }
}

/// A file's name and text, shared by the problems found in it.
pub type Source = Arc<NamedSource<String>>;

pub fn source(name: impl AsRef<str>, text: impl Into<String>) -> Source {
    Arc::new(NamedSource::new(name, text.into()).with_language("yaml"))
}

/// One mistake at one place.
#[derive(Clone)]
pub struct Problem {
    pub mistake: Mistake,
    source: Source,
    span: Span,
}

/// What can be wrong with a scenario file. The text says what is wrong, [`Mistake::label`] points, [`Mistake::help`] says
/// what to write instead.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Mistake {
    #[error("this is not YAML: {message}")]
    Syntax { message: String },
    #[error("the key `{key}` is there twice")]
    DuplicateKey { key: String },
    #[error("the file holds {found} documents")]
    Documents { found: usize },
    #[error("unknown key `{key}` in {element}")]
    UnknownKey { key: String, element: String, known: Vec<String> },
    #[error("key `{key}` is missing in {element}")]
    MissingKey { key: String, element: String },
    #[error("expected {expected}, found {found}")]
    WrongType { expected: String, found: String, quote: bool },
    #[error("`{value}` is not {what}")]
    UnknownChoice { value: String, what: String, choices: Vec<String> },
    #[error("`{value}` is not {what}: {reason}")]
    BadValue { value: String, what: String, reason: String, example: String },
    #[error("{about}")]
    Contradiction { about: String, label: String, help: String },
    #[error("nothing is called `{name}` here: {what}")]
    UnknownReference { name: String, what: String, known: Vec<String> },
    #[error("this gives the answer away: `{word}` in {place}")]
    AnswerLeak { word: String, place: String },
    #[error("the healthy run meets this expectation too: {item}")]
    Vacuous { item: String },
    #[error("`{other}` expects the same on {gateway}")]
    Confusable { other: String, gateway: String },
}

impl Mistake {
    /// Stable name, for `--json` and for searching the documentation.
    pub fn code(&self) -> &'static str {
        match self {
            Mistake::Syntax { .. } => "scenario::syntax",
            Mistake::DuplicateKey { .. } => "scenario::duplicate-key",
            Mistake::Documents { .. } => "scenario::documents",
            Mistake::UnknownKey { .. } => "scenario::unknown-key",
            Mistake::MissingKey { .. } => "scenario::missing-key",
            Mistake::WrongType { .. } => "scenario::wrong-type",
            Mistake::UnknownChoice { .. } => "scenario::unknown-choice",
            Mistake::BadValue { .. } => "scenario::bad-value",
            Mistake::Contradiction { .. } => "scenario::contradiction",
            Mistake::UnknownReference { .. } => "scenario::unknown-reference",
            Mistake::AnswerLeak { .. } => "scenario::answer-leak",
            Mistake::Vacuous { .. } => "scenario::vacuous",
            Mistake::Confusable { .. } => "scenario::confusable",
        }
    }

    fn label(&self) -> String {
        match self {
            Mistake::Syntax { .. } => "here".to_owned(),
            Mistake::DuplicateKey { .. } => "the second one".to_owned(),
            Mistake::Documents { .. } => "a scenario is one document".to_owned(),
            Mistake::UnknownKey { .. } => "not a key of this element".to_owned(),
            Mistake::MissingKey { key, .. } => format!("`{key}` belongs here"),
            Mistake::WrongType { found, .. } => format!("this is {found}"),
            Mistake::UnknownChoice { .. } | Mistake::BadValue { .. } => "not understood".to_owned(),
            Mistake::Contradiction { label, .. } => label.clone(),
            Mistake::UnknownReference { .. } => "refers to nothing".to_owned(),
            Mistake::AnswerLeak { .. } => "a trainee who reads this knows the cause".to_owned(),
            Mistake::Vacuous { .. } => "shows nothing about the fault".to_owned(),
            Mistake::Confusable { .. } => "does not tell the two apart".to_owned(),
        }
    }

    fn help(&self) -> String {
        match self {
            Mistake::Syntax { .. } => "indent with spaces, two for each level; quote text that holds `: ` or `#`".to_owned(),
            Mistake::DuplicateKey { .. } => "remove one of the two; which one counts would be a matter of luck".to_owned(),
            Mistake::Documents { found: 0 } => "write a scenario; docs/scenario-format.md shows one".to_owned(),
            Mistake::Documents { .. } => "remove the `---` lines and what follows, or make a folder for each scenario".to_owned(),
            Mistake::UnknownKey { key, known, .. } => nearest_or_all(key, known),
            Mistake::MissingKey { key, .. } => format!("add `{key}: …`; docs/scenario-format.md shows what it holds"),
            Mistake::WrongType { expected, quote: true, .. } => format!("put it in quotes to make it {expected}"),
            Mistake::WrongType { expected, .. } => format!("write {expected}; docs/scenario-format.md shows an example"),
            Mistake::UnknownChoice { value, choices, .. } => nearest_or_all(value, choices),
            Mistake::BadValue { example, .. } => format!("for example: {example}"),
            Mistake::Contradiction { help, .. } => help.clone(),
            Mistake::UnknownReference { name, known, .. } => nearest_or_all(name, known),
            Mistake::AnswerLeak { .. } => "names, labels, images and hints must read the same with and without the fault".to_owned(),
            Mistake::Vacuous { .. } => "expect something that only the fault brings about, or leave it out".to_owned(),
            Mistake::Confusable { other, .. } => {
                format!("name `{other}` under confusable-with (and this scenario in `{other}`) and say how to tell them apart")
            }
        }
    }
}

/// `did you mean …?` where one name is near, else all of them.
pub fn nearest_or_all(name: &str, known: &[String]) -> String {
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "there is none".to_owned(),
        None => format!("one of: {}", known.join(", ")),
    }
}

/// The name most like `name`, when one is like it at all.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

impl Problem {
    pub fn new(mistake: Mistake, source: &Source, span: Span) -> Self {
        Problem { mistake, source: source.clone(), span }
    }

    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// Line and column, both from 1.
    pub fn position(&self) -> (usize, usize) {
        let text = self.source.inner();
        let before = text.get(..self.span.in_text(text).offset()).unwrap_or("");
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before.get(line_start..).unwrap_or("").chars().count() + 1)
    }

    pub fn help_text(&self) -> String {
        self.mistake.help()
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.position();
        write!(f, "{}:{line}:{column}: {}", self.file(), self.mistake)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mistake.fmt(f)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.mistake.code()))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.mistake.help()))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&*self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.in_text(self.source.inner());
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some(self.mistake.label()), span))))
    }
}

/// The mistakes of one file, as they are found.
#[derive(Clone, Debug)]
pub struct Problems {
    pub source: Source,
    found: Vec<Problem>,
}

impl Problems {
    pub fn of(source: Source) -> Self {
        Problems { source, found: Vec::new() }
    }

    pub fn add(&mut self, span: Span, mistake: Mistake) {
        self.found.push(Problem::new(mistake, &self.source, span));
    }

    pub fn contradiction(&mut self, span: Span, about: impl Into<String>, label: impl Into<String>, help: impl Into<String>) {
        self.add(span, Mistake::Contradiction { about: about.into(), label: label.into(), help: help.into() });
    }

    /// A problem of another file that this one is read with.
    pub fn add_elsewhere(&mut self, problem: Problem) {
        self.found.push(problem);
    }

    /// A file that the YAML parser gave up on.
    pub fn syntax(&mut self, error: &serde_saphyr::Error) {
        let span = error.location().map_or(Span::default(), super::yaml::span_of);
        let mistake = match error.without_snippet() {
            serde_saphyr::Error::DuplicateMappingKey { key, .. } => Mistake::DuplicateKey { key: key.clone().unwrap_or_default() },
            // Without its own snippet and place: the diagnostic shows both.
            other => {
                let text = other.to_string();
                let message = text.split(" at line ").next().unwrap_or(&text).to_owned();
                Mistake::Syntax { message }
            }
        };
        self.add(span, mistake);
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// In the order in which they stand in the file.
    pub fn into_sorted(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| (problem.file().to_owned(), problem.position()));
        self.found
    }
}
