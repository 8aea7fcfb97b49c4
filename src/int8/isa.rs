//! Which instructions the kernels may use.

use std::fmt;

/// An instruction set with kernels of its own, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    Scalar,
    /// x86-64: `vpmaddwd` on widened operands (`vpmaddubsw` would saturate).
    Avx2,
    /// x86-64: 256-bit `vpdpbusd`.
    AvxVnni,
    /// x86-64: 512-bit `vpdpbusd`.
    Avx512Vnni,
    /// AArch64: `smull`, `smlal2`, `sadalp`.
    Neon,
    /// AArch64 with `asimddp`: `sdot`.
    NeonDot,
    /// AArch64 with `i8mm`: `smmla`.
    NeonI8mm,
}

impl Isa {
    /// Every instruction set that this machine has, slowest first.
    pub fn available() -> Vec<Isa> {
        let mut found = vec![Isa::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                found.push(Isa::Avx2);
                if is_x86_feature_detected!("avxvnni") {
                    found.push(Isa::AvxVnni);
                }
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vnni")
            {
                found.push(Isa::Avx512Vnni);
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            found.push(Isa::Neon);
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                found.push(Isa::NeonDot);
            }
            if std::arch::is_aarch64_feature_detected!("i8mm") {
                found.push(Isa::NeonI8mm);
            }
        }
        found
    }

    /// The fastest one here.
    pub fn best() -> Isa {
        *Self::available().last().expect("Scalar is always there")
    }

    /// As `doctor` and logs print it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avx-vnni",
            Isa::Avx512Vnni => "avx512-vnni",
            Isa::Neon => "neon",
            Isa::NeonDot => "neon-dotprod",
            Isa::NeonI8mm => "neon-i8mm",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
