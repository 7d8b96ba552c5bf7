//! Passwords, read anew for each probe and kept out of every text.

use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::health::outcome::{Failure, FailureKind};
use crate::model::check::Secret;

/// The longest password: what a file holds beyond it is an error, not a password. Unit: bytes.
const PASSWORD_MAX_BYTES: usize = 1024;

/// A password. It has no `Debug` and no `Display`, so that no text can hold it by mistake.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Password(Vec<u8>);

impl Password {
    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A server's words without this password: some servers quote what they did not understand.
    pub(super) fn hidden_in(&self, words: &str) -> String {
        match std::str::from_utf8(&self.0) {
            Ok(password) if !password.is_empty() => words.replace(password, "***"),
            _ => words.to_owned(),
        }
    }
}

/// Reads a password, if there is one to read.
///
/// # Errors
/// [`FailureKind::Local`], naming the file or the variable.
pub(super) async fn read(secret: Option<&Secret>) -> Result<Option<Password>, Failure> {
    match secret {
        None => Ok(None),
        Some(Secret::Env(name)) => from_environment(name).map(Some),
        Some(Secret::File(path)) => from_file(path.clone()).await.map(Some),
    }
}

fn from_environment(name: &str) -> Result<Password, Failure> {
    use std::os::unix::ffi::OsStringExt;
    let value = std::env::var_os(name)
        .ok_or_else(|| local(format!("lbd's environment has no variable {name}")))?;
    checked(value.into_vec()).map_err(|why| local(format!("variable {name} {why}")))
}

async fn from_file(path: PathBuf) -> Result<Password, Failure> {
    let shown = path.display().to_string();
    let failed = |error: String| local(format!("password file {shown}: {error}"));
    let line = tokio::task::spawn_blocking(move || first_line(&path))
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))?;
    checked(line).map_err(|why| local(format!("password file {shown} {why}")))
}

/// Only of a regular file, and without waiting: nobody may ever write to a FIFO.
fn first_line(path: &Path) -> io::Result<Vec<u8>> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut line = Vec::new();
    file.take(PASSWORD_MAX_BYTES as u64 + 2)
        .read_to_end(&mut line)?;
    if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
        line.truncate(end);
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

fn checked(bytes: Vec<u8>) -> Result<Password, String> {
    match bytes.len() {
        0 => Err("is empty: write the password to its first line".to_owned()),
        long if long > PASSWORD_MAX_BYTES => {
            Err(format!("holds more than {PASSWORD_MAX_BYTES} bytes"))
        }
        _ if bytes.contains(&0) => Err("holds a NUL byte".to_owned()),
        _ => Ok(Password(bytes)),
    }
}

fn local(reason: String) -> Failure {
    Failure::new(FailureKind::Local, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_file(path: &Path) -> Result<Password, Failure> {
        read(Some(&Secret::File(path.to_owned())))
            .await
            .map(|password| password.expect("a file was named"))
    }

    async fn reason(path: &Path) -> String {
        match read_file(path).await {
            Ok(_) => panic!("{} was read", path.display()),
            Err(failure) => {
                assert_eq!(failure.kind, FailureKind::Local);
                failure.reason
            }
        }
    }

    #[tokio::test]
    async fn the_first_line_counts_whatever_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        for content in ["s3cret", "s3cret\n", "s3cret\r\n", "s3cret\nmore\n"] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(read_file(&path).await.unwrap().as_bytes(), b"s3cret");
        }
    }

    #[tokio::test]
    async fn what_is_no_password_file_is_named_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        assert!(reason(&path).await.contains(path.to_str().unwrap()));
        std::fs::write(&path, "\n").unwrap();
        assert!(reason(&path).await.contains("is empty"));
        std::fs::write(&path, "x".repeat(5_000)).unwrap();
        assert!(reason(&path).await.contains("more than 1024 bytes"));
        assert!(reason(dir.path()).await.contains("not a regular file"));
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(reason(&fifo).await.contains("not a regular file"));
    }

    #[tokio::test]
    async fn a_variable_that_is_not_there_is_named() {
        let name = "LBD_TEST_NO_SUCH_VARIABLE";
        let failure = read(Some(&Secret::Env(name.to_owned())))
            .await
            .err()
            .expect("no such variable");
        assert!(failure.reason.contains(name), "{failure}");
        assert!(read(Some(&Secret::Env("PATH".to_owned()))).await.is_ok());
    }

    #[test]
    fn a_password_is_hidden_in_a_servers_words() {
        let words = Password::of("s3cret").hidden_in("unknown command 'AUTH' 's3cret'");
        assert_eq!(words, "unknown command 'AUTH' '***'");
    }
}
