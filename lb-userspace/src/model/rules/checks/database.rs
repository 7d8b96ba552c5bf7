//! MySQL, PostgreSQL and Redis.

use super::{Findings, Subject};
use crate::model::check::CheckType;
use crate::model::files;
use crate::model::problem::{Kind, Place, Problem};

/// How far behind a replica may be: to a day. Unit: seconds.
const LAG_RANGE: (i64, i64) = (0, 24 * 3_600);

/// How often a Redis primary that has nothing to say speaks to its replicas, unless its
/// `repl-ping-replica-period` is another. Unit: seconds.
const REDIS_PING_PERIOD_S: i64 = 10;

pub(super) fn check(subject: &Subject<'_>, check_type: CheckType, findings: &mut Findings) {
    if !check_type.is_database() {
        return;
    }
    check_user(subject, check_type, findings);
    check_password(subject, findings);
    let (low, high) = LAG_RANGE;
    let lag = subject.check.max_lag_s.given().copied();
    findings.range(lag, low..=high, subject.number("max_lag", " seconds"));
    if check_type == CheckType::Redis {
        findings.problems.extend(hasty_redis_lag(
            lag,
            subject.place("max_lag"),
            &subject.name,
        ));
    }
    check_gtid(subject, findings);
}

/// A `max_lag` that a healthy replica of Redis exceeds. All that it knows is how long ago it heard from its
/// primary.
pub(super) fn hasty_redis_lag(lag_s: Option<i64>, place: Place, subject: &str) -> Option<Problem> {
    let lag_s = lag_s.filter(|lag_s| (0..REDIS_PING_PERIOD_S).contains(lag_s))?;
    let message = format!(
        "max_lag {lag_s} s is less than the {REDIS_PING_PERIOD_S} s at which an idle Redis primary speaks: \
         its replicas would seem to be behind"
    );
    let problem = Problem::new(Kind::Warning, place, subject, message);
    Some(problem.help(format!(
        "make it {REDIS_PING_PERIOD_S}s or more, unless the primary's repl-ping-replica-period is shorter"
    )))
}

fn check_user(subject: &Subject<'_>, check_type: CheckType, findings: &mut Findings) {
    let check = subject.check;
    let has_password = check.password_file.is_written() || check.password_env.is_written();
    if check_type != CheckType::Redis {
        findings.require(&check.user, subject.section, "user", &subject.name);
    } else if check.user.given().is_some() && !has_password {
        let problem = subject.invalid("user", "Redis knows no user without a password");
        findings.push(problem.help("add password_file or password_env, or leave `user` out"));
    }
}

fn check_password(subject: &Subject<'_>, findings: &mut Findings) {
    let check = subject.check;
    if check.password_file.is_written() && check.password_env.is_written() {
        let (file, variable) = (
            subject.place("password_file"),
            subject.place("password_env"),
        );
        let message = "the password comes from a file and from the environment";
        let problem = Problem::new(Kind::Conflict, variable, &subject.name, message);
        findings.push(problem.against(file).help("leave one of them out"));
    }
    if let Some(file) = check.password_file.given()
        && files::is_world_readable(file)
    {
        let message = format!("password_file {file} can be read by every user of this machine");
        let place = subject.place("password_file");
        let problem = Problem::new(Kind::Warning, place, &subject.name, message);
        findings.push(problem.help(format!("chmod 600 {file}")));
    }
    if let Some(variable) = check.password_env.given() {
        check_variable(subject, variable, findings);
    }
}

fn check_variable(subject: &Subject<'_>, variable: &str, findings: &mut Findings) {
    let is_plain = |sign: char| sign.is_ascii_alphanumeric() || sign == '_';
    if variable.is_empty() {
        // Reported with the other texts.
    } else if !variable.chars().all(is_plain) {
        // Somebody may have written the password itself: it is not repeated.
        let problem = subject.invalid("password_env", "password_env is no variable's name");
        findings.push(problem.help("write the name of a variable, such as `DB_PASSWORD`"));
    } else if std::env::var_os(variable).is_none() {
        let message = format!("password_env {variable} is not set in lbd's environment");
        let problem = subject.invalid("password_env", message);
        findings.push(problem.help(
            "set it where lbd is started (EnvironmentFile= with systemd), or use password_file",
        ));
    }
}

/// MySQL's `uuid:1-5,…` or MariaDB's `0-1-100,…`: it becomes part of a query.
fn check_gtid(subject: &Subject<'_>, findings: &mut Findings) {
    let Some(gtid) = subject.check.gtid.given() else {
        return;
    };
    let is_part = |sign: char| sign.is_ascii_hexdigit() || "-:, ".contains(sign);
    if !gtid.chars().all(is_part) {
        let problem = subject.invalid("gtid", format!("gtid {gtid:?} is no GTID position"));
        findings.push(problem.help("write it like MariaDB's `0-1-100` or MySQL's `UUID:1-100`"));
    }
}
