//! CHECK: whether the attachment is still what ADD made, as `prevResult` and the configuration say. The reference looks
//! at the pod's end alone.

use hostnet::prev_result::Listed;
use hostnet::{Netlink, Owner, endpoint};
use libcni::Error;
use libcni::plugin::Request;

use crate::conf::Conf;
use crate::{host, lease, pod};

/// Compares everything but the lease, which is the IPAM plugin's to judge.
pub fn attachment(req: &Request<Conf>) -> Result<(), Error> {
    let listed = Listed::of(req)?;
    let result = &listed.result;
    let ends = lease::ends(&result.ips)?;
    let (mut host, mut pod) = Netlink::pair(req.netns()?)?;
    let pod_end = listed.pod_end(&mut pod, false)?;
    let host_end = listed
        .host_end(&mut host, &pod_end)
        .map_err(|error| error.context(format!("the host's end of {} was not found", pod_end.name)))?;
    endpoint::check(&mut pod, req.ifname().as_str(), &result.ips, &result.routes)?;
    pod::check(&mut pod, &pod_end, &ends)?;
    host::check(&mut host, &host_end, &ends)?;
    Ok(req.conf().egress.check(&Owner::of(req), &result.ips)?)
}
