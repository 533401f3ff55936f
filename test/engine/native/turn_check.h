// Whose turn it is in the scheduler's queue, and how much of a step a prompt gets (scheduler/fair.h, ageing.h, pace.h).
#pragma once
#include <string>

namespace sparrow::test {

/// Empty, or what is wrong.
std::string pace_keeps_its_part();
std::string shares_are_fair();
std::string waiting_makes_up();

}  // namespace sparrow::test
