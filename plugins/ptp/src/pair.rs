//! The veth pair between pod and node. It is nobody's port: the node routes.

use hostnet::veth::{self, Veth, VethConf};
use hostnet::{Error, Netlink, Owner, Undo, link};
use libcni::plugin::Request;
use libcni::types::Success;

use crate::conf::Conf;

/// Place of the pod's interface in a result: after the host's end.
pub const POD: usize = 1;

/// Makes the pair; the host's end is up and says whose it is.
pub fn create(
    host: &mut Netlink,
    pod: &mut Netlink,
    req: &Request<Conf>,
    owner: &Owner,
    undo: &mut Undo<'_>,
) -> Result<Veth, Error> {
    let veth = veth::create(host, pod, &wanted(req.conf(), owner))?;
    veth::undo_create(&veth, undo);
    link::set_alias(host, veth.host.index, &owner.alias())?;
    link::set_up(host, veth.host.index)?;
    Ok(veth)
}

/// Makes a pair whose ends are both in the one namespace, for STATUS.
pub fn try_out(nl: &mut Netlink, conf: &Conf, owner: &Owner) -> Result<(), Error> {
    veth::create(nl, &mut Netlink::open()?, &wanted(conf, owner)).map(drop)
}

fn wanted<'a>(conf: &Conf, owner: &'a Owner) -> VethConf<'a, impl Iterator<Item = String> + Clone + use<'a>> {
    let (pod_name, host_names) = (owner.ifname.as_str(), veth::host_names(owner));
    VethConf { pod_name, host_names, mac: None, mtu: conf.mtu, master: None }
}

/// The interfaces of the result, in the reference's order: host's end, pod's end.
pub fn result(req: &Request<Conf>, veth: &Veth) -> Result<Success, libcni::Error> {
    let mut pod = veth.pod.interface();
    pod.sandbox = req.netns()?.display().to_string();
    Ok(Success { interfaces: vec![veth.host.interface(), pod], ..Success::default() })
}
