//! A value read from the outside, or the reason why there is none.
//!
//! Unknown is not zero: a [`Reading`] has no `Default`, no `unwrap_or` and no conversion that invents a value. It
//! can be looked at ([`Reading::value`]) or carried on; whoever prints it must decide what absence looks like.

use serde::{Serialize, Serializer};

/// What became of one attempt to read one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a reading that nobody looks at was read for nothing"]
pub enum Reading<T> {
    /// The value, as the source gave it.
    Value(T),
    /// The source says that this device or driver has no such thing. Not an error.
    NotSupported,
    /// It should have been there and could not be read; the reason, in the source's words.
    Failed(String),
}

impl<T> Reading<T> {
    /// The value, if one was read.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::NotSupported | Self::Failed(_) => None,
        }
    }

    /// Why reading failed; `None` for a value and for something that the device doesn't have.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Failed(reason) => Some(reason),
            Self::Value(_) | Self::NotSupported => None,
        }
    }

    /// True when there is no value to show.
    pub fn is_absent(&self) -> bool {
        self.value().is_none()
    }

    /// Applies `f` to the value and keeps the absence as it is.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Reading<U> {
        match self {
            Self::Value(value) => Reading::Value(f(value)),
            Self::NotSupported => Reading::NotSupported,
            Self::Failed(reason) => Reading::Failed(reason),
        }
    }

    /// Combines two readings; the first absence wins.
    pub fn zip<U>(self, other: Reading<U>) -> Reading<(T, U)> {
        match (self, other) {
            (Self::Value(a), Reading::Value(b)) => Reading::Value((a, b)),
            (Self::Failed(reason), _) | (Self::Value(_), Reading::Failed(reason)) => Reading::Failed(reason),
            (Self::NotSupported, _) | (Self::Value(_), Reading::NotSupported) => Reading::NotSupported,
        }
    }

    /// Borrows the value.
    pub fn as_ref(&self) -> Reading<&T> {
        match self {
            Self::Value(value) => Reading::Value(value),
            Self::NotSupported => Reading::NotSupported,
            Self::Failed(reason) => Reading::Failed(reason.clone()),
        }
    }
}

/// An absent reading serialises as nothing at all where its field says
/// `#[serde(skip_serializing_if = "Reading::is_absent")]`, which [`readings!`](crate::readings) adds to each field.
impl<T: Serialize> Serialize for Reading<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(serializer),
            Self::NotSupported | Self::Failed(_) => serializer.serialize_none(),
        }
    }
}

/// A field that should have been readable and was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// Name of the field, as in the output.
    pub field: &'static str,
    /// Why there is no value.
    pub reason: String,
}

/// Declares a struct all of whose fields are [`Reading`]s, so that nobody can forget one of them.
///
/// The struct knows its fields by name: what failed can be listed ([`Unread`]), and a test or a scenario can make
/// any of them fail.
#[macro_export]
macro_rules! readings {
    (
        $(#[$meta:meta])*
        pub struct $name:ident { $( $(#[$field_meta:meta])* pub $field:ident: $ty:ty, )* }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(skip_serializing_if = "Reading::is_absent")]
                pub $field: $crate::Reading<$ty>,
            )*
        }

        impl $name {
            /// Names of all fields, as in the output.
            pub const FIELDS: &'static [&'static str] = &[$(stringify!($field)),*];

            /// A set of readings of which every one failed for the same reason, as for a device that has gone.
            pub fn all_failed(reason: &str) -> Self {
                Self { $($field: $crate::Reading::Failed(reason.to_owned())),* }
            }

            /// A set of readings none of which the source supports; the starting point to fill in.
            pub fn none_supported() -> Self {
                Self { $($field: $crate::Reading::NotSupported),* }
            }

            /// Makes the named field fail; false when there is no such field.
            #[must_use]
            pub fn fail(&mut self, field: &str, reason: &str) -> bool {
                match field {
                    $(stringify!($field) => self.$field = $crate::Reading::Failed(reason.to_owned()),)*
                    _ => return false,
                }
                true
            }

            /// What should have been readable and was not.
            pub fn unread(&self) -> Vec<$crate::reading::Unread> {
                let mut unread = Vec::new();
                $(
                    if let Some(reason) = self.$field.failure() {
                        unread.push($crate::reading::Unread { field: stringify!($field), reason: reason.to_owned() });
                    }
                )*
                unread
            }

            /// Names of the fields that have a value.
            pub fn present(&self) -> Vec<&'static str> {
                let mut present = Vec::new();
                $( if !self.$field.is_absent() { present.push(stringify!($field)); } )*
                present
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_absence_wins_when_two_readings_are_combined() {
        let failed = Reading::<u8>::Failed("lost".to_owned());
        assert_eq!(Reading::Value(1).zip(Reading::Value(2)), Reading::Value((1, 2)));
        assert_eq!(
            Reading::Value(1).zip(failed.clone()),
            Reading::Failed("lost".to_owned())
        );
        assert_eq!(Reading::<u8>::NotSupported.zip(failed), Reading::NotSupported);
    }

    #[test]
    fn absence_survives_map() {
        assert_eq!(Reading::<u8>::NotSupported.map(u16::from), Reading::NotSupported);
        assert_eq!(Reading::Value(3_u8).map(u16::from), Reading::Value(3_u16));
    }
}
