//! What `host setup` makes of a site's uplink, on real interfaces.

use labwright::host::machine::setup;

use crate::world::{World, tool};

fn world() -> World {
    let mut world = World::bare();
    world.network.uplink = Some("eth1".to_owned());
    world.network.untagged_bridge = Some("vbr0".to_owned());
    world.network.forwarding = Some(true);
    tool("ip", &["link", "add", "eth1", "type", "veth", "peer", "name", "wire"]);
    world
}

fn setup(world: &World) -> Result<Vec<String>, String> {
    setup::setup(&world.wanted()).map_err(|error| error.to_string())
}

#[test]
fn the_uplink_joins_its_bridge_once() {
    let world = world();
    let done = setup(&world).unwrap();
    assert!(done.contains(&"bridge vbr0 made, eth1 joined vbr0, forwarding on vbr0 turned on".to_owned()), "{done:?}");
    assert_eq!(setup(&world).unwrap(), Vec::<String>::new(), "a second time finds all standing");
    assert!(tool("bridge", &["link", "show", "dev", "eth1"]).contains("master vbr0"));
    assert_eq!(tool("sysctl", &["-n", "net.ipv4.conf.vbr0.forwarding"]), "1\n");
    assert_eq!(tool("sysctl", &["-n", "net.ipv4.conf.eth1.forwarding"]), "0\n", "what is not ours stays as it is");

    setup::teardown(&world.wanted()).unwrap();
    assert!(tool("ip", &["-o", "link", "show", "dev", "eth1"]).contains("eth1@wire"), "the uplink stays");
}

#[test]
fn an_uplink_that_others_use_is_left_alone() {
    let mut world = world();
    tool("ip", &["addr", "add", "10.0.0.7/24", "dev", "eth1"]);
    let in_use = setup(&world).unwrap_err();
    tool("ip", &["addr", "flush", "dev", "eth1"]);
    tool("ip", &["link", "add", "br9", "type", "bridge"]);
    tool("ip", &["link", "set", "eth1", "master", "br9"]);
    let elsewhere = setup(&world).unwrap_err();
    world.network.uplink = Some("eth7".to_owned());
    let missing = setup(&world).unwrap_err();
    insta::assert_snapshot!([in_use, elsewhere, missing].join("\n\n"));
}

/// Kernels without 802.1Q, such as those of many test machines, say so; the commands are tested with the module.
#[test]
fn a_vlan_is_a_tagged_port_or_a_clear_no() {
    let mut world = world();
    (world.group.vlan, world.group.bridge) = (Some(120), "vbr120".to_owned());
    match setup(&world) {
        Ok(_) => assert!(tool("bridge", &["link", "show", "dev", "eth1.120"]).contains("master vbr120")),
        Err(error) => assert_eq!(
            error,
            "cannot make the tagged port `eth1.120`; does this kernel have 802.1Q (`modprobe 8021q`)? \
             Without it no vm group can have a `vlan:`"
        ),
    }
}
