//! Kernel of matrix products for software adapters, on which a CPU runs the threads of a GPU.
//!
//! Burn's kernels stage tiles in shared memory behind barriers, and compile sizes in. On a software adapter barriers cost more than
//! they save, and compiling takes longer than a step. Here a thread holds a tile of the product in registers and reads the operands in
//! place, whatever their strides are. Sizes are read at run time, so that a few kernels serve all products.

#![expect(
    unsafe_code,
    reason = "kernels of GPUs are started without checks of each index"
)]

use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::calculate_cube_count_elemwise;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::matmul::init_matmul_output;
use burn_cubecl::tensor::CubeTensor;

/// Axes of the operands: two leading ones, rows, columns.
const AXES: usize = 4;
/// Rows and columns of a tile.
const TILE: usize = 16;
/// Threads of a workgroup: the values of a register of the CPU.
const THREADS: u32 = 8;
/// Values of the longest sum: llvmpipe ends the loops of a kernel after 65,535 turns.
const MOST_TURNS: usize = 60_000;
/// Values of one read, if they lie beside each other.
const WIDTH: usize = 4;

/// Computes one tile of the product of `lhs`: `[.., m, k]` and `rhs`: `[.., k, n]`.
///
/// Operands are read `width` values at a time, along `k` or along the other axis of the matrix. Tiles at the edge read its last
/// row or column again, and do not write it.
#[cube(launch_unchecked)]
fn tile<F: Float, N: Size>(
    lhs: &Tensor<Vector<F, N>>,
    rhs: &Tensor<Vector<F, N>>,
    out: &mut Tensor<F>,
    #[comptime] width: usize,
    #[comptime] lhs_along_k: bool,
    #[comptime] rhs_along_k: bool,
) {
    let side = comptime!(TILE);
    let m = out.shape(2);
    let n = out.shape(3);
    let k = lhs.shape(3);
    let tiles_m = m.div_ceil(side);
    let tiles_n = n.div_ceil(side);
    if ABSOLUTE_POS >= out.shape(0) * out.shape(1) * tiles_m * tiles_n {
        terminate!();
    }
    let column = ABSOLUTE_POS % tiles_n * side;
    let rest = ABSOLUTE_POS / tiles_n;
    let row = rest % tiles_m * side;
    let rest = rest / tiles_m;
    let inner = rest % out.shape(1);
    let outer = rest / out.shape(1);

    // Places of the reads. A leading axis of length 1 is the same for all.
    let lhs_at = outer % lhs.shape(0) * lhs.stride(0) + inner % lhs.shape(1) * lhs.stride(1);
    let rhs_at = outer % rhs.shape(0) * rhs.stride(0) + inner % rhs.shape(1) * rhs.stride(1);
    let lhs_step = comptime!(if lhs_along_k { 1usize } else { width });
    let rhs_step = comptime!(if rhs_along_k { 1usize } else { width });
    let lhs_reads = comptime!(side / lhs_step);
    let rhs_reads = comptime!(side / rhs_step);
    let mut lhs_places = Array::<usize>::new(lhs_reads);
    #[unroll]
    for i in 0..lhs_reads {
        lhs_places[i] = lhs_at + (row + i * lhs_step).min(m - lhs_step) * lhs.stride(2);
    }
    let mut rhs_places = Array::<usize>::new(rhs_reads);
    #[unroll]
    for j in 0..rhs_reads {
        rhs_places[j] = rhs_at + (column + j * rhs_step).min(n - rhs_step) * rhs.stride(3);
    }

    let mut sums = Array::<F>::new(side * side);
    #[unroll]
    for i in 0..side * side {
        sums[i] = F::new(0.0);
    }
    let mut left = Array::<F>::new(side * width);
    let mut right = Array::<F>::new(width * width);
    for step in 0..k / width {
        let at = step * width;
        if comptime!(lhs_along_k) {
            #[unroll]
            for i in 0..side {
                let values = lhs[(lhs_places[i] + at * lhs.stride(3)) / width];
                #[unroll]
                for p in 0..width {
                    left[i * width + p] = values.extract(p);
                }
            }
        } else {
            #[unroll]
            for p in 0..width {
                #[unroll]
                for i in 0..lhs_reads {
                    let values = lhs[(lhs_places[i] + (at + p) * lhs.stride(3)) / width];
                    #[unroll]
                    for q in 0..width {
                        left[(i * width + q) * width + p] = values.extract(q);
                    }
                }
            }
        }
        #[unroll]
        for j in 0..side / width {
            if comptime!(rhs_along_k) {
                #[unroll]
                for q in 0..width {
                    let values = rhs[(rhs_places[j * width + q] + at * rhs.stride(2)) / width];
                    #[unroll]
                    for p in 0..width {
                        right[q * width + p] = values.extract(p);
                    }
                }
            } else {
                #[unroll]
                for p in 0..width {
                    let values = rhs[(rhs_places[j] + (at + p) * rhs.stride(2)) / width];
                    #[unroll]
                    for q in 0..width {
                        right[q * width + p] = values.extract(q);
                    }
                }
            }
            #[unroll]
            for q in 0..width {
                #[unroll]
                for i in 0..side {
                    let mut sum = sums[i * side + j * width + q];
                    #[unroll]
                    for p in 0..width {
                        sum = fma(left[i * width + p], right[q * width + p], sum);
                    }
                    sums[i * side + j * width + q] = sum;
                }
            }
        }
    }

    // A loop over rows in which the sums move up: writing all of them in a row takes 15 times as long to compile.
    let row_stride = out.stride(2);
    let column_stride = out.stride(3);
    let first = outer * out.stride(0) + inner * out.stride(1);
    let mut at = first + row * row_stride + column * column_stride;
    for _ in row..(row + side).min(m) {
        #[unroll]
        for j in 0..side {
            if column + j < n {
                out[at + j * column_stride] = sums[j];
            }
        }
        #[unroll]
        for i in 0..(side - 1) * side {
            sums[i] = sums[i + side];
        }
        at += row_stride;
    }
}

/// Returns true if the kernel multiplies these operands: f32 on a software adapter, with at most two leading axes and sums that one
/// loop ends.
pub(super) fn suits(lhs: &CubeTensor, rhs: &CubeTensor) -> bool {
    let in_f32 = lhs.dtype == DType::F32 && rhs.dtype == DType::F32;
    let axes = lhs.meta.num_dims().max(rhs.meta.num_dims());
    let k = lhs.meta.shape()[lhs.meta.num_dims() - 1];
    in_f32 && axes <= AXES && k <= MOST_TURNS && super::facts::is_software(&lhs.client)
}

/// Multiplies matrices that the kernel [`suits`].
pub(super) fn multiply(lhs: CubeTensor, rhs: CubeTensor) -> CubeTensor {
    let out = init_matmul_output(&lhs, &rhs, DType::F32);
    let [lhs, rhs, product] = [lhs, rhs, out.clone()].map(with_all_axes);
    let shape = product.meta.shape();
    let tiles = shape[0] * shape[1] * shape[2].div_ceil(TILE) * shape[3].div_ceil(TILE);
    let threads = CubeDim::new_1d(THREADS);
    let count = calculate_cube_count_elemwise(&out.client, tiles, threads);
    let (width, lhs_along_k, rhs_along_k) = match (wide_axis(&lhs, 3), wide_axis(&rhs, 2)) {
        (Some(left), Some(right)) => (WIDTH, left == 3, right == 2),
        _ => (1, true, true),
    };
    // SAFETY: the kernel stays within the shapes of its arguments, which are those of a product.
    unsafe {
        tile::launch_unchecked::<f32>(
            &out.client,
            count,
            threads,
            width,
            lhs.into_tensor_arg(),
            rhs.into_tensor_arg(),
            product.into_tensor_arg(),
            width,
            lhs_along_k,
            rhs_along_k,
        );
    }
    out
}

/// Adds leading axes of length 1.
fn with_all_axes(mut tensor: CubeTensor) -> CubeTensor {
    while tensor.meta.num_dims() < AXES {
        tensor.meta.insert(0, 1, 0);
    }
    tensor
}

/// Returns the axis of a matrix along which [`WIDTH`] values at a time can be read: their places are multiples of it. `k` is the axis
/// that is summed over.
fn wide_axis(tensor: &CubeTensor, k: usize) -> Option<usize> {
    let (shape, strides) = (tensor.meta.shape(), tensor.meta.strides());
    let is_aligned = |axis| {
        (0..AXES)
            .all(|other| other == axis || shape[other] == 1 || strides[other].is_multiple_of(WIDTH))
    };
    [k, 5 - k].into_iter().find(|&axis| {
        strides[axis] == 1
            && shape[axis].is_multiple_of(WIDTH)
            && shape[k].is_multiple_of(WIDTH)
            && is_aligned(axis)
    })
}
