//! What a router's priority is at present, and why.

/// How well a router is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The priority at present, 1 to 255.
    pub priority: u8,
    /// Why the node cannot have the VIPs: with any of these the router is in fault. In words.
    pub faults: Vec<String>,
    /// Why the priority is lower than configured. In words.
    pub troubles: Vec<String>,
}

impl Condition {
    /// All is well.
    pub const fn well(priority: u8) -> Self {
        Self {
            priority,
            faults: Vec::new(),
            troubles: Vec::new(),
        }
    }

    /// What follows from what is not well. The priority falls by the sum of the weights, but not below 1: 0 is said by
    /// one that resigns (RFC 9568 section 5.2.4).
    pub fn of(configured: u8, unwell: impl IntoIterator<Item = Unwell>) -> Self {
        let mut condition = Self::well(configured);
        for Unwell { what, weight } in unwell {
            match weight {
                None => condition.faults.push(what),
                Some(weight) => {
                    condition.priority = condition.priority.saturating_sub(weight).max(1);
                    condition.troubles.push(format!("{what}: -{weight}"));
                }
            }
        }
        condition
    }

    /// Whether the node cannot have the VIPs.
    pub fn is_fault(&self) -> bool {
        !self.faults.is_empty()
    }
}

/// Something tracked that is not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwell {
    /// What, in words.
    pub what: String,
    /// By how much the priority falls; `None`: the router is in fault.
    pub weight: Option<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unwell(what: &str, weight: Option<u8>) -> Unwell {
        Unwell {
            what: what.to_owned(),
            weight,
        }
    }

    #[test]
    fn weights_add_up_and_leave_at_least_one() {
        let both = [unwell("eth1 is down", Some(50)), unwell("web", Some(30))];
        let condition = Condition::of(200, both);
        assert_eq!(condition.priority, 120);
        assert_eq!(condition.troubles, ["eth1 is down: -50", "web: -30"]);
        assert!(!condition.is_fault());
        let all = Condition::of(100, [unwell("a", Some(254)), unwell("b", Some(254))]);
        assert_eq!(all.priority, 1);
    }

    #[test]
    fn without_a_weight_it_is_a_fault() {
        let condition = Condition::of(200, [unwell("no datapath", None)]);
        assert!(condition.is_fault());
        assert_eq!(condition.priority, 200);
        assert_eq!(condition.faults, ["no datapath"]);
    }
}
