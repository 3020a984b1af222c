//! What the IPAM plugin gave: each address with the gateway that the node will be for it.

use std::net::IpAddr;

use libcni::types::{Cidr, Code, Error, IpConfig, Success};

use crate::pair;

/// An address at each end of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The pod's, with the subnet it is of.
    pub pod: Cidr,
    /// The node's, the pod's gateway.
    pub host: IpAddr,
}

/// Takes the lease over into the result.
pub fn complete(lease: Success, result: &mut Success) -> Result<Vec<Ends>, Error> {
    result.ips = lease.ips;
    result.routes = lease.routes;
    result.dns = lease.dns;
    for ip in &mut result.ips {
        ip.interface = i64::try_from(pair::POD).ok();
    }
    ends(&result.ips)
}

/// The ends' addresses. There is no other way out of the pod than the gateway, so each address needs one.
pub fn ends(ips: &[IpConfig]) -> Result<Vec<Ends>, Error> {
    let refuse = |why: String| Err(Error::new(Code::INVALID_CONFIG, why));
    let mut all = Vec::new();
    for ip in ips {
        let pod = ip.address;
        let Some(host) = ip.gateway else {
            return refuse(format!("IPAM gave {pod} without a gateway; ptp needs one for each address"));
        };
        if host.is_ipv4() != pod.is_ipv4() || host == pod.addr() {
            return refuse(format!("IPAM gave {pod} with {host}, which cannot be its gateway"));
        }
        all.push(Ends { pod, host });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_needs_a_gateway_of_its_own_family_that_is_not_itself() {
        let ip = |gateway: Option<&str>| {
            IpConfig::new("10.1.0.2/32".parse().unwrap(), gateway.map(|text| text.parse().unwrap()))
        };
        assert_eq!(ends(&[ip(Some("169.254.1.1"))]).unwrap().len(), 1);
        for bad in [None, Some("fd00::1"), Some("10.1.0.2")] {
            let error = ends(&[ip(Some("10.1.0.1")), ip(bad)]).unwrap_err();
            assert!(error.code() == Code::INVALID_CONFIG && error.msg().contains("10.1.0.2/32"), "{error}");
        }
    }
}
