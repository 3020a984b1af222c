//! The node's administrator says which sysctls a network may set: one regular expression a line, tried on the key as
//! it is written, anywhere in it unless it is anchored. Without the file every key of the namespace is allowed; an empty
//! file allows none.

use std::fs;
use std::io;

use libcni::{Code, Error};
use regex_lite::Regex;

use crate::sysctl::Sysctl;

/// Where it is, as in the reference.
const PATH: &str = "/etc/cni/tuning/allowlist.conf";

/// Refuses sysctls that the list has no line for.
///
/// # Errors
/// One is not allowed; the list cannot be read, or has a line that is no regular expression.
pub fn check(sysctls: &[Sysctl]) -> Result<(), Error> {
    if sysctls.is_empty() {
        return Ok(());
    }
    match fs::read_to_string(PATH) {
        Ok(text) => judge(&text, sysctls),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::new(Code::IO_FAILURE, format!("read {PATH}: {error}"))),
    }
}

fn judge(text: &str, sysctls: &[Sysctl]) -> Result<(), Error> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut allowed = Vec::with_capacity(lines.len());
    for line in &lines {
        let regex = Regex::new(line)
            .map_err(|error| Error::internal(format!("{PATH}: error parsing regexp {line:?}: {error}")))?;
        allowed.push(regex);
    }
    match sysctls.iter().find(|sysctl| !allowed.iter().any(|line| line.is_match(&sysctl.key))) {
        Some(sysctl) => {
            let list = lines.join(" ");
            let key = &sysctl.key;
            let msg = format!("Sysctl {key} is not allowed. Only the following sysctls are allowed: [{list}]");
            Err(Error::internal(msg).with_details(PATH))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let sysctls = [Sysctl::new("net.ipv4.conf.all.log_martians", "1").unwrap()];
        for good in [r"^net\.ipv4\.conf\.all\.[a-z_]*$", "\n  martians  \nx", "(?i)MARTIANS", r"^net\.(ipv4|ipv6)\."] {
            judge(good, &sysctls).unwrap();
        }
        for (bad, part) in [
            ("", "is not allowed. Only the following sysctls are allowed: []"),
            ("\n\n", "[]"),
            (r"^net\.ipv6\.", r"[^net\.ipv6\.]"),
            ("# martians", "[# martians]"),
            ("martians\n(", "error parsing regexp \"(\""),
        ] {
            assert!(judge(bad, &sysctls).unwrap_err().msg().contains(part), "{bad:?}");
        }
    }

    /// As it is written: the reference does not turn slashes into dots, nor put the interface's name in.
    #[test]
    fn the_key_as_it_is_written() {
        judge("^net/", &[Sysctl::new("net/ipv4/x", "1").unwrap()]).unwrap();
        judge(r"^net\.", &[Sysctl::new("net/ipv4/x", "1").unwrap()]).unwrap_err();
        judge("IFNAME", &[Sysctl::new("net.ipv4.conf.IFNAME.x", "1").unwrap()]).unwrap();
    }
}
