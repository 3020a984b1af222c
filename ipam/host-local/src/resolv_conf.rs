//! `resolvConf`: a file of the form of `resolv.conf(5)`, from which the result's `dns` is read.
//!
//! It is read as the reference reads it: `search` adds up over lines, of several `domain` the last is meant,
//! lines that are comments (`#`, `;`), have one word, or begin with another word mean nothing.

use std::path::Path;

use libcni::types::Dns;
use libcni::{Code, Error, regular_file};

/// Longest file that is read, in bytes: the path may be that of a device without an end.
const LENGTH_MAX: u64 = 1 << 20;

/// Reads a file.
///
/// # Errors
/// Code 5 naming the key, the path and the cause.
pub fn read(path: &Path) -> Result<Dns, Error> {
    let text = std::fs::File::open(path)
        .and_then(|file| regular_file::read_at_most(file, LENGTH_MAX))
        .map_err(|error| Error::new(Code::IO_FAILURE, format!("ipam.resolvConf: open {}: {error}", path.display())))?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        let (Some(key), Some(value)) = (words.next(), words.next()) else { continue };
        let values = std::iter::once(value).chain(words).map(str::to_owned);
        match key {
            "nameserver" => dns.nameservers.push(value.to_owned()),
            "domain" => value.clone_into(&mut dns.domain),
            "search" => dns.search.extend(values),
            "options" => dns.options.extend(values),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_resolv_conf_5_knows() {
        let dns = parse(
            "# comment\n; comment\n  nameserver 192.0.2.1 ignored\nnameserver 2001:db8::1\ndomain first.test\n\
             domain example.test\nsearch a.test b.test\nsearch c.test\noptions ndots:5 rotate\r\noptions timeout:1\n\
             nameserver\nsortlist 1.2.3.4\n\n",
        );
        assert_eq!(dns.nameservers, ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(dns.domain, "example.test");
        assert_eq!(dns.search, ["a.test", "b.test", "c.test"]);
        assert_eq!(dns.options, ["ndots:5", "rotate", "timeout:1"]);
    }

    #[test]
    fn nothing_in_nothing() {
        assert!(parse("").is_empty() && parse("#nameserver 192.0.2.1").is_empty());
    }

    #[test]
    fn long_lines_are_read() {
        // The reference stops at 64 KiB: "token too long".
        let dns = parse(&format!("search {}", "a.test ".repeat(20_000)));
        assert_eq!(dns.search.len(), 20_000);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read(Path::new("/nonexistent/resolv.conf")).unwrap_err();
        assert_eq!(error.code(), Code::IO_FAILURE);
        assert!(error.msg().contains("/nonexistent/resolv.conf: No such file"), "{error}");
    }
}
