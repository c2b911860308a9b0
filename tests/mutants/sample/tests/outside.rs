//! A test program of its own.

use sample::{Area, fits, squares, wider};

#[test]
fn what_fits() {
    assert!(fits(1, 1, false));
    assert!(!fits(1, 2, false));
    assert!(fits(7, 7, true));
}

#[test]
fn areas_get_wider() {
    let area = Area { width: 3, height: 1 };
    assert_eq!(wider(Some(area)), Some(Area { width: 6, height: 1 }));
    assert_eq!(wider(None), None);
    assert_eq!(squares(3).sum::<u32>(), 5);
}
