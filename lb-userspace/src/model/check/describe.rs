use std::fmt;

use super::{Check, CheckKind, Via};
use crate::model::Keyword;

/// In a few words what is asked, such as `https GET /health, port 8443`: never a header, a query, an
/// argument or anything else that may be a secret.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        if let Some(port) = self.port {
            write!(f, ", port {port}")?;
        }
        match self.via {
            Via::Direct => Ok(()),
            Via::Datapath => f.write_str(", through the datapath"),
        }
    }
}

/// The same, without port and way.
impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.check_type().word())?;
        match self {
            Self::Http(http) => {
                // A query may hold a token.
                let path = http.path.split('?').next().unwrap_or_default();
                write!(f, " {} {path}", http.method)
            }
            Self::Fastcgi(fastcgi) => write!(f, " {}", fastcgi.path),
            Self::Grpc(grpc) if !grpc.service.is_empty() => write!(f, " {}", grpc.service),
            Self::Dns(dns) => write!(f, " {} {}", dns.name, dns.query_type.word()),
            Self::Exec(exec) => write!(f, " {}", exec.program.display()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HttpCheck, HttpVersion, Timing};
    use super::*;

    #[test]
    fn a_description_tells_what_is_asked_and_no_secret() {
        let http = HttpCheck {
            tls: None,
            version: HttpVersion::Http1,
            method: "GET".to_owned(),
            path: "/health?token=hunter2".to_owned(),
            host: None,
            headers: vec![("authorization".to_owned(), "hunter2".to_owned())],
            status: vec![],
            body: "hunter2".to_owned(),
        };
        let check = Check {
            kind: CheckKind::Http(http),
            timing: Timing::DEFAULT,
            port: Some(8080),
            source: None,
            via: Via::Datapath,
        };
        assert_eq!(
            check.to_string(),
            "http GET /health, port 8080, through the datapath"
        );
    }
}
