//! The places that a MIG profile can take on a card, drawn as bars over the memory slices.

/// Characters for one slice.
const CELL: usize = 3;

/// The numbers of the slices, each over the middle of its cell.
pub(crate) fn ruler(slices: usize) -> String {
    let cells: Vec<String> = (0..slices).map(|slice| format!("{slice:^CELL$}")).collect();
    cells.concat().trim_end().to_owned()
}

/// One bar for each place, given as first slice and number of slices; a slice that no place covers is a dot.
///
/// Places that overlap are drawn on lines of their own.
pub(crate) fn bars(slices: usize, places: &[(usize, usize)]) -> Vec<String> {
    let mut lines: Vec<Vec<(usize, usize)>> = Vec::new();
    for &(start, size) in places {
        let is_free = |line: &&mut Vec<(usize, usize)>| {
            line.iter()
                .all(|&(other, length)| start >= other + length || other >= start + size)
        };
        match lines.iter_mut().find(is_free) {
            Some(line) => line.push((start, size)),
            None => lines.push(vec![(start, size)]),
        }
    }
    lines.into_iter().map(|line| draw(slices, line)).collect()
}

fn draw(slices: usize, mut places: Vec<(usize, usize)>) -> String {
    places.sort_unstable();
    let mut text = String::new();
    let mut next = 0;
    for (start, size) in places {
        text += &dots(start.saturating_sub(next));
        text.push('[');
        text += &"-".repeat((size * CELL).saturating_sub(2));
        text.push(']');
        next = start + size;
    }
    text += &dots(slices.saturating_sub(next));
    text.trim_end().to_owned()
}

fn dots(count: usize) -> String {
    format!("{:^CELL$}", ".").repeat(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_over_their_slices() {
        assert_eq!(ruler(8), " 0  1  2  3  4  5  6  7");
        let sevenths: Vec<(usize, usize)> = (0..7).map(|start| (start, 1)).collect();
        assert_eq!(bars(8, &sevenths), ["[-][-][-][-][-][-][-] ."]);
        assert_eq!(bars(8, &[(0, 2), (2, 2), (4, 2)]), ["[----][----][----] .  ."]);
        assert_eq!(bars(8, &[(0, 4), (4, 4)]), ["[----------][----------]"]);
        assert_eq!(bars(8, &[(4, 4)]), [" .  .  .  . [----------]"]);
    }

    #[test]
    fn places_that_overlap_are_on_lines_of_their_own() {
        assert_eq!(
            bars(4, &[(0, 2), (1, 2), (2, 2)]),
            ["[----][----]", " . [----] ."]
        );
    }
}
