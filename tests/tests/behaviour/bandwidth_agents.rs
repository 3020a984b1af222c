//! bandwidth beside others, who have a hook and filters of their own on the host's end of the veth.

use tests::Host;
use tests::plugin::with_prev_result;

use crate::bandwidth_conf::{
    add, both, check, conf, drop_filter, egress, ifb_of, kinds, pod_with_veth, redirects, traffic_control,
};

/// An agent's hook, with filters of its own in both directions.
fn agents_filters(host: &Host) {
    host.run("tc qdisc add dev host0 clsact");
    for hook in ["ingress", "egress"] {
        drop_filter(host, hook, 10);
    }
}

/// B7: the reference fails, as the two kinds of hook exclude each other.
#[test]
fn an_agents_filters_stay_and_come_first() {
    let host = Host::new();
    let pod = pod_with_veth(&host, "host0");
    host.run("ip address add 10.1.0.1/24 dev host0");
    host.run("ip address add 10.9.0.1/24 dev host0");
    pod.run("ip address add 10.1.0.2/24 dev eth0");
    pod.run("ip route add 10.9.0.0/24 dev eth0");
    agents_filters(&host);
    let state = traffic_control(&host);
    let conf = conf(&pod, both());
    let result = add(&host, &conf, &pod);
    check(&host, &conf, &result, &pod).success();
    assert_eq!(kinds(&host, "host0"), ["tbf", "clsact"]);
    assert!(pod.pings("10.1.0.1"));
    assert!(!pod.pings("10.9.0.1"), "the agent drops these");
    host.plugin("bandwidth").del(with_prev_result(&conf, &result), &pod, "eth0").success();
    assert_eq!(traffic_control(&host), state);
}

/// An agent that drops some packets by sending them to a link that is gone: they are still dropped.
#[test]
fn an_agents_filter_to_nowhere_stays() {
    let host = Host::new();
    let pod = pod_with_veth(&host, "host0");
    host.run("tc qdisc add dev host0 clsact");
    drop_filter(&host, "ingress", 10);
    host.run("ip link del sink0");
    let state = traffic_control(&host);
    assert!(state.contains("to device *"), "{state}");
    let conf = conf(&pod, both());
    let result = add(&host, &conf, &pod);
    assert_eq!(redirects(&host, "host0"), ["*".to_owned(), ifb_of(&result)]);
    host.plugin("bandwidth").del(with_prev_result(&conf, &result), &pod, "eth0").success();
    assert_eq!(traffic_control(&host), state);
}

/// B7, the other way round: an agent that comes later finds the hook that it needs.
#[test]
fn an_agent_may_come_later() {
    let host = Host::new();
    let pod = pod_with_veth(&host, "host0");
    let conf = conf(&pod, both());
    let result = add(&host, &conf, &pod);
    host.run("tc qdisc replace dev host0 clsact");
    drop_filter(&host, "ingress", 1);
    check(&host, &conf, &result, &pod).success();
    host.plugin("bandwidth").del(with_prev_result(&conf, &result), &pod, "eth0").success();
    let filters = host.run("tc filter show dev host0 ingress");
    assert!(filters.contains("pref 1 ") && !filters.contains("bwp"), "{filters}");
}

/// A hook of the kind that the reference makes, and which is not empty.
#[test]
fn an_ingress_qdisc_is_used_too() {
    let host = Host::new();
    let pod = pod_with_veth(&host, "host0");
    host.run("tc qdisc add dev host0 ingress");
    drop_filter(&host, "ingress", 10);
    let state = traffic_control(&host);
    let conf = conf(&pod, egress());
    let result = add(&host, &conf, &pod);
    assert_eq!((kinds(&host, "host0")[1].as_str(), redirects(&host, "host0")), ("ingress", vec![ifb_of(&result)]));
    check(&host, &conf, &result, &pod).success();
    host.plugin("bandwidth").del(with_prev_result(&conf, &result), &pod, "eth0").success();
    assert_eq!(traffic_control(&host), state);
}
