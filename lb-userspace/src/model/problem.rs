use std::fmt;

/// A part of the model: a table of the config file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// `[node]`.
    Node,
    /// `[limits]`.
    Limits,
    /// `[metrics]`.
    Metrics,
    /// `[hooks]`.
    Hooks,
    /// `[cluster]`.
    Cluster,
    /// The n-th `[[cluster.peer]]`, from 0.
    Peer(usize),
    /// The n-th `[[vrrp]]`, from 0.
    Vrrp(usize),
    /// The n-th track of the n-th `[[vrrp]]`, both from 0; group, track.
    Track(usize, usize),
    /// The n-th `[[interface]]`, from 0.
    Interface(usize),
    /// The n-th `[[service]]`, from 0.
    Service(usize),
    /// The n-th backend of the n-th service, both from 0.
    Backend(usize, usize),
    /// The n-th check of the n-th service, both from 0.
    Check(usize, usize),
    /// The n-th check of the n-th backend of the n-th service, all from 0; service, backend, check.
    BackendCheck(usize, usize, usize),
}

/// Where a problem is: a section and, mostly, one of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The section.
    pub section: Section,
    /// The key as the config file spells it; `None` = the section as a whole.
    pub key: Option<&'static str>,
}

impl Section {
    /// The section as a whole.
    pub const fn whole(self) -> Place {
        Place {
            section: self,
            key: None,
        }
    }

    /// One of its keys.
    pub const fn key(self, key: &'static str) -> Place {
        Place {
            section: self,
            key: Some(key),
        }
    }
}

impl Section {
    /// Whether this is the n-th service, or one of its backends or checks.
    pub fn is_of(self, service: usize) -> bool {
        match self {
            Self::Node
            | Self::Limits
            | Self::Metrics
            | Self::Hooks
            | Self::Cluster
            | Self::Peer(_)
            | Self::Vrrp(_)
            | Self::Track(..)
            | Self::Interface(_) => false,
            Self::Service(index)
            | Self::Backend(index, _)
            | Self::Check(index, _)
            | Self::BackendCheck(index, ..) => index == service,
        }
    }
}

/// What kind of problem it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that is wrong whatever else the model holds.
    Invalid,
    /// A value that contradicts another one in the model.
    Conflict,
    /// More entries than a configured limit allows.
    Full,
    /// Accepted, and worth knowing.
    Warning,
}

/// One thing that is wrong with a model, or worth knowing about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub kind: Kind,
    /// Where.
    pub place: Place,
    /// The thing by name, such as ``service `web`, backend `web1` ``.
    pub subject: String,
    /// What is wrong with it.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The other place in a contradiction.
    pub other: Option<Place>,
}

impl Problem {
    /// A problem of `kind` at `place`.
    pub fn new(
        kind: Kind,
        place: Place,
        subject: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            place,
            subject: subject.into(),
            message: message.into(),
            help: None,
            other: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the place that it contradicts.
    #[must_use]
    pub fn against(mut self, other: Place) -> Self {
        self.other = Some(other);
        self
    }

    /// Subject and message in one line, without the help.
    pub fn title(&self) -> String {
        format!("{}: {}", self.subject, self.message)
    }
}

/// One line: subject, message, help.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}
