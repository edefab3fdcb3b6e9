//! The addresses of a cluster with a node, all in one 10.N.0.0/16, so that clusters on one machine do not meet.

use std::net::Ipv4Addr;

/// N, which also is in the names of what the machine itself sees of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(u8);

impl Network {
    /// Those that a new cluster tries, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (77..=96).map(Self)
    }

    /// Of the machine's end of the wire to the node.
    pub fn interface(self) -> String {
        format!("reef{}", self.0)
    }

    /// Of the node's cgroup, in each hierarchy.
    pub fn cgroup(self) -> String {
        format!("reef-node-{}", self.0)
    }

    pub fn all_of_it(self) -> String {
        format!("{}/16", self.address(0, 0))
    }

    pub fn machine(self) -> Ipv4Addr {
        self.address(0, 1)
    }

    pub fn node(self) -> Ipv4Addr {
        self.address(0, 2)
    }

    pub fn pods(self) -> String {
        format!("{}/24", self.address(1, 0))
    }

    pub fn services(self) -> String {
        format!("{}/17", self.address(128, 0))
    }

    /// Of the Service `kubernetes`, which is always the first.
    pub fn api(self) -> Ipv4Addr {
        self.address(128, 1)
    }

    fn address(self, third: u8, fourth: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0, third, fourth)
    }
}
