//! The ranges of host-local: whether each is one, and whether two of them give out the same address.
//!
//! The rules are host-local's own (`ipam/host-local/src/conf.rs`); it has the last word.

use std::net::IpAddr;
use std::path::PathBuf;

use libcni::types::Cidr;
use libcni::types::json::{self, Object};
use serde_json::Value;

use super::document::{Document, Position};
use super::findings::{Findings, Level};
use super::keys::under;

/// Addresses that are given out, and where that is said.
#[derive(Clone, Debug)]
pub struct Range {
    pub network: String,
    pub file: PathBuf,
    pub at: Position,
    pub subnet: Cidr,
    start: IpAddr,
    end: IpAddr,
}

impl Range {
    fn overlaps(&self, other: &Self) -> bool {
        self.start.is_ipv4() == other.start.is_ipv4() && self.start <= other.end && other.start <= self.end
    }

    fn text(&self) -> String {
        format!("{}-{}", self.start, self.end)
    }
}

/// The ranges of an `ipam` of host-local that stands at `path`.
pub fn read(document: &Document, path: &str, ipam: &Object, network: &str, findings: &mut Findings) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    let mut found = false;
    if json::get(ipam, "subnet").is_some() {
        found = true;
        ranges.extend(range(document, path, ipam, network, findings));
    }
    if let Some(Value::Array(sets)) = json::get(ipam, "ranges") {
        for (i, set) in sets.iter().enumerate() {
            for (j, item) in set.as_array().into_iter().flatten().enumerate() {
                found = true;
                let path = under(path, &format!("ranges[{i}][{j}]"));
                if let Value::Object(item) = item {
                    ranges.extend(range(document, &path, item, network, findings));
                }
            }
        }
    }
    if !found {
        findings.warning(
            document,
            path,
            "no IP ranges specified: host-local needs \"ranges\" or \"subnet\", unless the runtime supplies ipRanges",
        );
    }
    for (index, later) in ranges.iter().enumerate() {
        for earlier in ranges.iter().take(index).filter(|earlier| earlier.overlaps(later)) {
            let message = format!("range {} overlaps with {} of the same network", later.text(), earlier.text());
            findings.add(&document.file, Some(later.at), Level::Error, message);
        }
    }
    ranges
}

/// Warns of ranges of different networks that overlap; each store knows nothing of the other.
pub fn compare(ranges: &[Range], findings: &mut Findings) {
    for (index, later) in ranges.iter().enumerate() {
        let others = ranges.iter().take(index).filter(|earlier| earlier.network != later.network);
        for earlier in others.filter(|earlier| earlier.overlaps(later)) {
            let (line, column) = earlier.at;
            let message = format!(
                "range {} overlaps with {} of network {:?} ({}:{line}:{column}): both give out the same addresses",
                later.text(),
                earlier.text(),
                earlier.network,
                earlier.file.display()
            );
            findings.add(&later.file, Some(later.at), Level::Warning, message);
        }
    }
}

fn range(document: &Document, path: &str, item: &Object, network: &str, findings: &mut Findings) -> Option<Range> {
    // A value that is no text has been refused by its shape.
    let text = |key: &str| json::get(item, key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let place = under(path, "subnet");
    let Some(subnet) = text("subnet") else {
        if json::get(item, "subnet").is_none_or(|subnet| subnet == "") {
            findings.error(document, path, "this range has no \"subnet\"");
        }
        return None;
    };
    let subnet: Cidr = match subnet.parse() {
        Ok(subnet) => subnet,
        Err(error) => {
            findings.error(document, &place, format!("invalid \"subnet\": {error}"));
            return None;
        }
    };
    let (network_addr, bits) = (subnet.network().addr(), if subnet.is_ipv4() { 32 } else { 128 });
    if subnet.addr() != network_addr {
        let right = subnet.network();
        findings.error(document, &place, format!("\"subnet\" {subnet} has host bits set; the network is {right}"));
        return None;
    }
    if subnet.prefix_len() > bits - 2 {
        findings.error(document, &place, format!("\"subnet\" {subnet} is too small to allocate from"));
        return None;
    }
    let mut address = |key: &str| {
        let text = text(key)?;
        let place = under(path, key);
        match text.parse::<IpAddr>().map(|addr| addr.to_canonical()) {
            Ok(addr) if subnet.contains(addr) => Some(addr),
            Ok(_) => {
                findings.error(document, &place, format!("{key:?} {text} is not in {subnet}"));
                None
            }
            Err(_) => {
                findings.error(document, &place, format!("{key:?} is not an IP address: {text:?}"));
                None
            }
        }
    };
    address("gateway");
    let start = address("rangeStart").or_else(|| offset(network_addr, 1))?;
    let last = if subnet.is_ipv4() { offset(subnet.last(), -1)? } else { subnet.last() };
    let end = address("rangeEnd").unwrap_or(last);
    if start > end {
        findings.error(
            document,
            &under(path, "rangeStart"),
            format!("\"rangeStart\" {start} is after \"rangeEnd\" {end}"),
        );
        return None;
    }
    let at = document.position(&place);
    Some(Range { network: network.to_owned(), file: document.file.clone(), at, subnet, start, end })
}

fn offset(addr: IpAddr, by: i8) -> Option<IpAddr> {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().checked_add_signed(by.into()).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(addr) => addr.to_bits().checked_add_signed(by.into()).map(|bits| IpAddr::V6(bits.into())),
    }
}
