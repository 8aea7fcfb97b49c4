//! Weights for a part of the views: the same each, or fitted so that what they add up to
//! is nearest to the map of all.

/// The same for each of the part's views (bit `i`: the i-th of `n`), 0 for the others.
pub fn uniform(n: usize, part: usize) -> Vec<f64> {
    let share = 1.0 / f64::from(part.count_ones().max(1));
    (0..n).map(|i| if part & 1 << i != 0 { share } else { 0.0 }).collect()
}

/// The weights, summing to one, of the part's views whose sum of maps is nearest to the
/// mean of all maps in the sense of least squares. `gram` holds the maps' products, `[n][n]`.
///
/// With the multiplier λ of the condition: `Σ_j G_ij w_j + λ = Σ_j G_ij / n` for each i of
/// the part, and `Σ_j w_j = 1`.
pub fn fitted(gram: &[Vec<f64>], part: usize) -> Vec<f64> {
    /// Of the diagonal: maps that say the same share their weight.
    const RIDGE: f64 = 1e-9;

    let n = gram.len();
    let members: Vec<usize> = (0..n).filter(|i| part & 1 << i != 0).collect();
    let mut system: Vec<Vec<f64>> = members
        .iter()
        .map(|&i| {
            let mut row: Vec<f64> = members.iter().map(|&j| gram[i][j]).collect();
            let own = members.iter().position(|&j| j == i).unwrap_or_default();
            row[own] += RIDGE * gram[i][i];
            row.extend([
                1.0,
                gram[i].iter().sum::<f64>() / n as f64 + RIDGE * gram[i][i] / n as f64,
            ]);
            row
        })
        .collect();
    let mut sum = vec![1.0; members.len()];
    sum.extend([0.0, 1.0]);
    system.push(sum);
    let Some(solution) = solved(system) else { return uniform(n, part) };
    let mut weights = vec![0.0; n];
    members.iter().zip(solution).for_each(|(&i, weight)| weights[i] = weight);
    weights
}

/// Solves `[m][m + 1]` linear equations by elimination with row pivots; `None` where they
/// have no single solution.
fn solved(mut rows: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let m = rows.len();
    for column in 0..m {
        let pivot =
            (column..m).max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs()))?;
        rows.swap(column, pivot);
        let pivot_row = rows[column].clone();
        if pivot_row[column].abs() < 1e-12 {
            return None;
        }
        for (i, row) in rows.iter_mut().enumerate() {
            if i == column {
                continue;
            }
            let factor = row[column] / pivot_row[column];
            row.iter_mut().zip(&pivot_row).for_each(|(x, p)| *x -= factor * p);
        }
    }
    Some((0..m).map(|i| rows[i][m] / rows[i][i]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equations() {
        let rows = vec![vec![0.0, 2.0, 4.0], vec![1.0, 1.0, 5.0]];
        assert_eq!(solved(rows), Some(vec![3.0, 2.0]));
        assert_eq!(solved(vec![vec![1.0, 1.0, 1.0], vec![2.0, 2.0, 2.0]]), None);
    }

    #[test]
    fn all_views_weigh_the_same_and_twins_stand_in_for_each_other() {
        // Three maps, the last two alike.
        let gram = vec![vec![2.0, 0.5, 0.5], vec![0.5, 1.0, 1.0], vec![0.5, 1.0, 1.0]];
        for (part, expected) in [
            (0b111, [1.0 / 3.0; 3]),
            (0b011, [1.0 / 3.0, 2.0 / 3.0, 0.0]),
            (0b101, [1.0 / 3.0, 0.0, 2.0 / 3.0]),
            (0b001, [1.0, 0.0, 0.0]),
        ] {
            let weights = fitted(&gram, part);
            let off = weights.iter().zip(expected).map(|(w, e)| (w - e).abs()).fold(0.0, f64::max);
            assert!(off < 1e-3, "{part:b}: {weights:?}");
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
        assert_eq!(fitted(&vec![vec![0.0; 2]; 2], 0b11), uniform(2, 0b11), "flat maps");
    }
}
