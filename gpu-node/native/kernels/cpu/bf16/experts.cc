// Mixture of experts: tokens are grouped by expert, so that a step reads each chosen expert's weights once.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "pool.h"

namespace sparrow::bf16 {
namespace {

/// One expert's tokens: slots [begin, begin + count) of the grouped order.
struct Group {
  int32_t expert, begin, count;
};

struct Plan {
  std::vector<Group> groups;
  std::vector<int32_t> place;  // (tokens * top_k) -> slot
  std::vector<int32_t> token;  // slot -> token
};

Plan group_by_expert(const int32_t* ids, int64_t slots, int32_t top_k, int32_t experts) {
  std::vector<int32_t> count(static_cast<size_t>(experts)), next(count.size());
  for (int64_t s = 0; s < slots; s++) count[static_cast<size_t>(ids[s])]++;
  Plan plan;
  int32_t begin = 0;
  for (int32_t e = 0; e < experts; e++) {
    const int32_t c = count[static_cast<size_t>(e)];
    if (c) plan.groups.push_back({e, begin, c});
    next[static_cast<size_t>(e)] = begin;
    begin += c;
  }
  plan.place.resize(static_cast<size_t>(slots));
  plan.token.resize(plan.place.size());
  for (int64_t s = 0; s < slots; s++) {
    const int32_t slot = next[static_cast<size_t>(ids[s])]++;
    plan.place[static_cast<size_t>(s)] = slot;
    plan.token[static_cast<size_t>(slot)] = static_cast<int32_t>(s / top_k);
  }
  return plan;
}

struct Call {
  const SpExperts& e;
  Pool& p;
  const Plan& plan;
  const float* tokens;  // (n, hidden)
  int64_t hidden, inter, ld_hidden, ld_inter;
  const Tiles in, out;  // gate and up have one shape, down the other
  bool codes;           // the experts' weights are quantised
  uint64_t number;      // of this call, of all backends'

  /// The group's tokens one behind the other. Each thread brings them for itself, once for the panels that it takes of
  /// a group, so that they are near when they are multiplied.
  const uint16_t* gathered(const Group& g) const {
    struct Near {
      Room<uint16_t> rows;
      uint64_t call = 0;
      int32_t begin = 0;
    };
    thread_local Near near;
    uint16_t* to = near.rows.ready(g.count * ld_hidden);
    if (near.call == number && near.begin == g.begin) return to;
    near.call = number;
    near.begin = g.begin;
    const size_t bytes = static_cast<size_t>(ceil_div(hidden, 2) * 4);
    for (int64_t i = 0; i < g.count; i++)
      std::memcpy(to + i * ld_hidden, p.half.data() + plan.token[static_cast<size_t>(g.begin + i)] * ld_hidden, bytes);
    return to;
  }

  /// The group's tokens, or what the first two products made of them.
  Inputs inputs(const Group& g, bool inner) const {
    Inputs x = {};
    if (codes)
      x.codes = (inner ? p.inner_codes : p.expert_codes).view(g.begin, g.count);
    else if (!p.k.rounds && inner)
      x.plain = {nullptr, p.full_inner.data() + g.begin * ld_inter, 0, ld_inter, g.count, nullptr};
    else if (!p.k.rounds)
      x.plain = {nullptr, tokens, 0, hidden, g.count, plan.token.data() + g.begin};
    else if (inner)
      x.plain = {p.expert_inner.data() + g.begin * ld_inter, nullptr, ld_inter, 0, g.count, nullptr};
    else
      x.plain = {gathered(g), nullptr, ld_hidden, 0, g.count, nullptr};
    return x;
  }

  /// Items are panels of one group after another.
  const Group& group_of(int64_t item, int64_t panels) const { return plan.groups[static_cast<size_t>(item / panels)]; }
  bool exists(int64_t item, int64_t panels) const { return item < panels * static_cast<int64_t>(plan.groups.size()); }

  /// Panels of the two inner products. Quantised ones have 64 rows in a row: their results are quantised in stretches.
  SpPanel inner_panel(const Group& g, int64_t index) const { return in.panel(index, codes || are_many(g.count)); }

  /// Bytes from panel `panel` of `from` to panel `then` of `to`, both of shape `tiles`.
  static int64_t way(const Tiles& tiles, const SpMatrix& from, const SpPanel& panel, const SpMatrix& to,
                     const SpPanel& then) {
    const auto *at = static_cast<const uint8_t*>(from.packed), *goal = static_cast<const uint8_t*>(to.packed);
    return goal - at + (then.begin - panel.begin) * tiles.packed.block_bytes;
  }

  /// Rows of one panel of silu(gate x) * (up x) of one group, rounded.
  void inner(int64_t item) const {
    const Group& g = group_of(item, in.panels);
    thread_local Room<float> gate_room, up_room;
    float *gate = gate_room.ready(g.count * inter), *up = up_room.ready(g.count * inter);
    const Inputs x = inputs(g, false);
    const SpMatrix &gates = e.gate[g.expert], &ups = e.up[g.expert];
    SpPanel panel = inner_panel(g, item % in.panels);
    panel.next = way(in, gates, panel, ups, panel);
    in.multiply(p.k, gates.packed, panel, x, gate, inter);
    const int64_t then = item + 1;
    panel.next = 0;
    if (exists(then, in.panels)) {
      const Group& after = group_of(then, in.panels);
      panel.next = way(in, ups, panel, e.gate[after.expert], inner_panel(after, then % in.panels));
    }
    in.multiply(p.k, ups.packed, panel, x, up, inter);
    // Blocks that lie together go together.
    const int32_t pieces = panel.step == 1 ? 1 : panel.count, wide = panel.count / pieces * SP_LANES;
    for (int64_t i = 0; i < g.count; i++) {
      for (int32_t piece = 0; piece < pieces; piece++) {
        const int64_t at = (panel.begin + piece * panel.step) * SP_LANES, rows = std::min<int64_t>(wide, inter - at);
        float* row = gate + i * inter + at;
        p.k.swiglu_row(row, up + i * inter + at, rows);
        if (codes)
          p.inner_codes.set(p.k, g.begin + i, row, rows, at);
        else if (!p.k.rounds)
          std::copy_n(row, rows, p.full_inner.data() + (g.begin + i) * ld_inter + at);
        else
          p.k.to_bf16(row, rows, at + rows == inter ? rows + inter % 2 : rows,
                      p.expert_inner.data() + (g.begin + i) * ld_inter + at);
      }
    }
  }

  void outer(int64_t item) const {
    const Group& g = group_of(item, out.panels);
    const SpMatrix& down = e.down[g.expert];
    SpPanel panel = out.panel(item % out.panels, are_many(g.count));
    const int64_t then = item + 1;
    if (then % out.panels == 0 && exists(then, out.panels)) {
      const Group& after = group_of(then, out.panels);
      panel.next = way(out, down, panel, e.down[after.expert], out.panel(0, are_many(after.count)));
    }
    out.multiply(p.k, down.packed, panel, inputs(g, true), p.expert_out.data() + g.begin * hidden, hidden);
  }

  /// Token t's activations, rounded, or quantised for each of its slots.
  void prepare(int64_t t) const {
    if (!codes) return p.k.to_bf16(tokens + t * hidden, hidden, ceil_div(hidden, 2) * 2, p.half.data() + t * ld_hidden);
    const int32_t* place = plan.place.data() + t * e.top_k;
    p.codes.set(p.k, t, tokens + t * hidden, hidden, 0);
    for (int32_t s = 0; s < e.top_k; s++) p.expert_codes.copy(place[s], p.codes, t);
  }
};

template <class T>
void reserve(Lines<T>& v, int64_t size) {
  if (v.size() < static_cast<size_t>(size)) v.resize(static_cast<size_t>(size));
}

}  // namespace

void experts(void* self, const SpExperts* e, const float* x, const int32_t* ids, const float* weights, int32_t n,
             float* y) {
  Pool& p = pool(self);
  const int64_t hidden = e->gate[0].cols, inter = e->gate[0].rows, slots = int64_t{n} * e->top_k;
  const bool codes = input_kind(e->gate[0]) == InputKind::kCodes;
  const Plan plan = group_by_expert(ids, slots, e->top_k, e->experts);
  static std::atomic<uint64_t> calls{0};
  const Call call = {
      *e,    p,      plan, x, hidden, inter, padded(hidden), padded(inter), Tiles(e->gate[0]), Tiles(e->down[0]),
      codes, ++calls};
  if (codes) {
    p.codes.resize(n, hidden);
    p.expert_codes.resize(slots, hidden);
    p.inner_codes.resize(slots, inter);
  } else if (!p.k.rounds) {
    reserve(p.full_inner, slots * call.ld_inter);
  } else {
    reserve(p.half, n * call.ld_hidden);
    reserve(p.expert_inner, slots * call.ld_inter);
  }
  reserve(p.expert_out, slots * hidden);
  const auto sum = [&](int64_t t) {
    constexpr int32_t kRows = 8;
    const float* rows[kRows];
    for (int32_t from = 0; from < e->top_k; from += kRows) {
      const int32_t count = std::min(kRows, e->top_k - from);
      for (int32_t i = 0; i < count; i++)
        rows[i] = p.expert_out.data() + plan.place[static_cast<size_t>(t * e->top_k + from + i)] * hidden;
      p.k.add_rows(rows, weights + t * e->top_k + from, count, hidden, y + t * hidden);
    }
  };
  const int64_t groups = static_cast<int64_t>(plan.groups.size());
  if (codes || p.k.rounds) p.threads.each(n, [&](int64_t t) { call.prepare(t); });
  p.threads.each(groups * call.in.panels, [&](int64_t i) { call.inner(i); });
  const int64_t panels = groups * call.out.panels, some = call.out.panels_an_item();
  p.threads.each(ceil_div(panels, some), [&](int64_t i) {
    for (int64_t panel = i * some; panel < std::min(panels, (i + 1) * some); panel++) call.outer(panel);
  });
  p.threads.each(n, sum);
}

}  // namespace sparrow::bf16
