//! What lies on one card, what still fits, and how to make a wish fit.

use super::{Attribute, Geometry, Placement, Profile};

/// The GPU instances on one card.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    instances: Vec<(Profile, Placement)>,
}

impl FromIterator<(Profile, Placement)> for Layout {
    fn from_iter<I: IntoIterator<Item = (Profile, Placement)>>(instances: I) -> Self {
        Self {
            instances: instances.into_iter().collect(),
        }
    }
}

/// An instance can't be put there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// The card has no such profile.
    #[error("the card has no profile `{0}`")]
    NoSuchProfile(Profile),
    /// The profile can't start there.
    #[error("`{profile}` can't start at slice {start}; it can at {starts}")]
    NoSuchPlacement {
        /// The profile.
        profile: Profile,
        /// Where it was to start.
        start: u8,
        /// Where it can, as text.
        starts: String,
    },
    /// Another instance is in the way.
    #[error("it would overlap `{in_the_way}` at slice {start}")]
    Overlap {
        /// The instance that is in the way.
        in_the_way: Profile,
        /// Where that one starts.
        start: u8,
    },
    /// There are as many as the card can have.
    #[error("the card can have {max} of `{profile}`, and has them")]
    TooMany {
        /// The profile.
        profile: Profile,
        /// Most instances of it.
        max: u32,
    },
}

impl Layout {
    /// The instances, in the order of their creation.
    pub fn instances(&self) -> &[(Profile, Placement)] {
        &self.instances
    }

    /// Whether an instance of the profile can be put there now.
    pub fn can_place(
        &self,
        geometry: &Geometry,
        profile: &Profile,
        placement: Placement,
    ) -> Result<(), PlacementError> {
        let known = geometry
            .profile(profile)
            .ok_or_else(|| PlacementError::NoSuchProfile(profile.clone()))?;
        if !known.placements.contains(&placement) {
            let starts: Vec<String> = known
                .placements
                .iter()
                .map(|place| place.start.to_string())
                .collect();
            return Err(PlacementError::NoSuchPlacement {
                profile: profile.clone(),
                start: placement.start,
                starts: starts.join(", "),
            });
        }
        let same = self
            .instances
            .iter()
            .filter(|(other, _)| shares_limit(profile, other))
            .count();
        if u32::try_from(same).unwrap_or(u32::MAX) >= known.max_instances {
            return Err(PlacementError::TooMany {
                profile: profile.clone(),
                max: known.max_instances,
            });
        }
        match self.instances.iter().find(|(_, other)| other.overlaps(placement)) {
            Some((in_the_way, other)) => Err(PlacementError::Overlap {
                in_the_way: in_the_way.clone(),
                start: other.start,
            }),
            None => Ok(()),
        }
    }

    /// Where an instance of the profile can be put now.
    pub fn free_placements(&self, geometry: &Geometry, profile: &Profile) -> Vec<Placement> {
        let all = geometry
            .profile(profile)
            .map(|known| known.placements.as_slice())
            .unwrap_or_default();
        all.iter()
            .copied()
            .filter(|&place| self.can_place(geometry, profile, place).is_ok())
            .collect()
    }

    /// How many more instances of the profile fit.
    pub fn remaining(&self, geometry: &Geometry, profile: &Profile) -> usize {
        let mut layout = self.clone();
        // Placements of one profile are disjoint or equal on every card, so first fit is exact.
        while let Some(&place) = layout.free_placements(geometry, profile).first() {
            layout.instances.push((profile.clone(), place));
        }
        layout.instances.len() - self.instances.len()
    }
}

/// Instances with all or one set of media engines compete for the same engines, whatever their size.
fn shares_limit(profile: &Profile, other: &Profile) -> bool {
    let media = |profile: &Profile| matches!(profile.attribute, Some(Attribute::Media | Attribute::AllMedia));
    profile == other || media(profile) && media(other)
}

/// The wish doesn't fit the card in any arrangement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} does not fit this card in any arrangement")]
pub struct DoesNotFit {
    /// What was wanted.
    pub wanted: String,
}

/// Places for all wanted instances on an empty card, larger ones first; the first arrangement found, always the same.
///
/// The search is exact: cards have at most seven instances.
pub fn pack(geometry: &Geometry, wanted: &[(Profile, u32)]) -> Result<Layout, DoesNotFit> {
    let refuse = || {
        let parts: Vec<String> = wanted
            .iter()
            .map(|(profile, count)| format!("{count} x {profile}"))
            .collect();
        DoesNotFit {
            wanted: parts.join(" + "),
        }
    };
    let slices = usize::from(geometry.memory_slices);
    let count: usize = wanted
        .iter()
        .map(|(_, count)| usize::try_from(*count).unwrap_or(usize::MAX))
        .fold(0, usize::saturating_add);
    // Each instance takes a slice, so more can't fit; this also bounds the search.
    if count > slices {
        return Err(refuse());
    }
    let mut profiles: Vec<&Profile> = wanted
        .iter()
        .flat_map(|(profile, count)| (0..*count).map(move |_| profile))
        .collect();
    profiles.sort_by_key(|profile| {
        let size = geometry
            .profile(profile)
            .and_then(|known| known.placements.first())
            .map(|place| place.size);
        (std::cmp::Reverse(size), *profile)
    });
    let mut layout = Layout::default();
    if place_all(geometry, &profiles, &mut layout) {
        Ok(layout)
    } else {
        Err(refuse())
    }
}

fn place_all(geometry: &Geometry, profiles: &[&Profile], layout: &mut Layout) -> bool {
    let Some((first, rest)) = profiles.split_first() else {
        return true;
    };
    for place in layout.free_placements(geometry, first) {
        layout.instances.push(((*first).clone(), place));
        if place_all(geometry, rest, layout) {
            return true;
        }
        layout.instances.pop();
    }
    false
}

/// What mig-parted calls `all-balanced`: 2 x 1g, 1 x 2g and 1 x 3g on cards of seven slices, 2 x 1g and 1 x 2g on
/// cards of four.
pub fn balanced(geometry: &Geometry) -> Vec<(Profile, u32)> {
    let counts: &[(u8, u32)] = if geometry.memory_slices == 8 {
        &[(1, 2), (2, 1), (3, 1)]
    } else {
        &[(1, 2), (2, 1)]
    };
    counts
        .iter()
        .filter_map(|&(slices, count)| {
            let plain = |profile: &&super::GeometryProfile| {
                profile.profile.gpu_slices == slices && profile.profile.attribute.is_none()
            };
            geometry
                .profiles
                .iter()
                .find(plain)
                .map(|known| (known.profile.clone(), count))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;
    use crate::mig::geometry;
    use proptest::prelude::*;

    fn of(card: &str) -> Geometry {
        geometry(catalog::find(card).unwrap()).unwrap()
    }

    fn wanted(text: &[(&str, u32)]) -> Vec<(Profile, u32)> {
        text.iter()
            .map(|(name, count)| (name.parse().unwrap(), *count))
            .collect()
    }

    #[test]
    fn what_fits_an_h100_is_found() {
        let h100 = of("H100 SXM5 80GB");
        for fits in [
            &[("1g.10gb", 7)][..],
            &[("3g.40gb", 2)],
            &[("4g.40gb", 1), ("3g.40gb", 1)],
            &[("1g.20gb", 4)],
            &[("1g.10gb", 2), ("2g.20gb", 1), ("3g.40gb", 1)],
            &[("1g.10gb+me", 1), ("1g.10gb", 6)],
            &[("7g.80gb", 1)],
        ] {
            assert!(pack(&h100, &wanted(fits)).is_ok(), "{fits:?}");
        }
        for too_much in [
            &[("1g.10gb", 8)][..],
            &[("4g.40gb", 2)],
            &[("3g.40gb", 2), ("1g.10gb", 1)],
            &[("1g.10gb+me", 2)],
            &[("7g.80gb", 1), ("1g.10gb", 1)],
            &[("1g.5gb", 1)],
            &[("1g.10gb", u32::MAX)],
        ] {
            assert!(pack(&h100, &wanted(too_much)).is_err(), "{too_much:?}");
        }
    }

    #[test]
    fn every_card_takes_its_balanced_layout() {
        for card in catalog::all() {
            if let Some(geometry) = geometry(card) {
                assert!(pack(&geometry, &balanced(&geometry)).is_ok(), "{}", card.name);
            }
        }
    }

    #[test]
    fn a_refusal_says_what_is_in_the_way() {
        let h100 = of("H100 SXM5 80GB");
        let layout: Layout = [("3g.40gb".parse().unwrap(), Placement { start: 4, size: 4 })]
            .into_iter()
            .collect();
        let refused = |name: &str, start, size| {
            layout
                .can_place(&h100, &name.parse().unwrap(), Placement { start, size })
                .unwrap_err()
                .to_string()
        };
        assert_eq!(refused("1g.10gb", 5, 1), "it would overlap `3g.40gb` at slice 4");
        assert_eq!(
            refused("2g.20gb", 1, 2),
            "`2g.20gb` can't start at slice 1; it can at 0, 2, 4"
        );
        assert_eq!(refused("1g.5gb", 0, 1), "the card has no profile `1g.5gb`");
        assert_eq!(layout.remaining(&h100, &"1g.10gb".parse().unwrap()), 4);
    }

    proptest! {
        #[test]
        fn whatever_is_created_never_overlaps(steps in prop::collection::vec((0_usize..7, 0_usize..8), 0..20)) {
            let h100 = of("H100 SXM5 80GB");
            let mut layout = Layout::default();
            for (profile, place) in steps {
                let known = &h100.profiles[profile];
                let place = known.placements[place % known.placements.len()];
                if layout.can_place(&h100, &known.profile, place).is_ok() {
                    layout.instances.push((known.profile.clone(), place));
                }
            }
            for (i, (_, a)) in layout.instances.iter().enumerate() {
                prop_assert!(layout.instances[..i].iter().all(|(_, b)| !a.overlaps(*b)));
            }
        }

        #[test]
        fn pack_finds_what_some_order_of_creation_finds(order in Just(vec![0_usize, 0, 1, 1, 2, 2, 3, 4, 5]).prop_shuffle()) {
            let h100 = of("H100 SXM5 80GB");
            let mut layout = Layout::default();
            for profile in order {
                let profile = &h100.profiles[profile].profile;
                if let Some(&place) = layout.free_placements(&h100, profile).last() {
                    layout.instances.push((profile.clone(), place));
                }
            }
            let wish: Vec<(Profile, u32)> = layout.instances.iter().map(|(profile, _)| (profile.clone(), 1)).collect();
            prop_assert!(pack(&h100, &wish).is_ok(), "{wish:?}");
        }
    }
}
