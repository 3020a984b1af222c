//! What needs a kernel with bridge VLAN filtering and 8021q. Not every kernel has them: `cargo xtask test` runs these
//! in a virtual machine with Debian's if this one has not.

#[cfg(test)]
mod filtering {
    use tests::Host;

    #[test]
    #[ignore = "needs VLAN filtering: cargo xtask test runs it"]
    fn the_kernel_filters() {
        let host = Host::new();
        host.run("ip link add cni0 type bridge vlan_filtering 1");
        let bridge = host.link("cni0").unwrap();
        assert_eq!(bridge.pointer("/linkinfo/info_data/vlan_filtering").unwrap(), 1, "{bridge}");
        host.run("ip link add one type veth peer name two");
        host.run("ip link set one master cni0");
        host.run("bridge vlan add dev one vid 100 pvid untagged");
        let vlans = host.run("bridge -j vlan show dev one");
        assert!(vlans.contains("\"vlan\":100"), "{vlans}");
        host.run("ip link add link cni0 name cni0.100 type vlan id 100");
    }
}
