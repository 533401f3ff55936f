// The tests, one an operation of the table; each in op_<name>.cc, and of what the model computes
// for them.
#pragma once
#include "check.h"
#include "data.h"

namespace sparrow::test {

void test_embed(Check& check);
void test_rms_norm(Check& check);
void test_layer_norm(Check& check);
void test_matmul(Check& check);
void test_matmul_heads(Check& check);
void test_rope(Check& check);
void test_add(Check& check);
void test_swiglu(Check& check);
void test_gate(Check& check);
void test_experts(Check& check);
void test_cache_write(Check& check);
void test_index_select(Check& check);
void test_attend(Check& check);
void test_attend_expanded(Check& check);
void test_rope_table(Check& check);
void test_crossover(Check& check);

}  // namespace sparrow::test
