// The transforms of one tile along one axis, B' of inputs and A' of outputs. Included once for each target, after
// multiply-inl.h.
HWY_BEFORE_NAMESPACE();
namespace galip {
namespace HWY_NAMESPACE {

HWY_INLINE Vector times(float factor, Vector v) { return hn::Mul(hn::Set(kF32, factor), v); }
HWY_INLINE Vector plus_times(Vector sum, float factor, Vector v) { return hn::MulAdd(hn::Set(kF32, factor), v, sum); }

// B' of F(m, 3) along one axis, and A'. Points are 0, 1, -1, 2, -2, 1/2, -1/2 and infinity, as far as F(m, 3) needs
// them. Behind a doubling, the inputs come without their repetitions, and point -1 is left out.
template <int Tile, bool Doubles>
struct Transform;

template <>
struct Transform<2, false> {
  static constexpr int kReads = 4, kSide = 4;
  static HWY_INLINE void input(const Vector *d, Vector *t) {
    t[0] = hn::Sub(d[0], d[2]);
    t[1] = hn::Add(d[1], d[2]);
    t[2] = hn::Sub(d[2], d[1]);
    t[3] = hn::Sub(d[3], d[1]);
  }
  static HWY_INLINE void output(const Vector *t, Vector *y) {
    y[0] = hn::Add(t[0], hn::Add(t[1], t[2]));
    y[1] = hn::Add(t[3], hn::Sub(t[1], t[2]));
  }
};

template <>
struct Transform<2, true> {
  static constexpr int kReads = 3, kSide = 3;
  static HWY_INLINE void input(const Vector *d, Vector *t) {
    t[0] = hn::Sub(d[0], d[1]);
    t[1] = hn::Add(d[1], d[1]);
    t[2] = hn::Sub(d[2], d[1]);
  }
  static HWY_INLINE void output(const Vector *t, Vector *y) {
    y[0] = hn::Add(t[0], t[1]);
    y[1] = hn::Add(t[1], t[2]);
  }
};

template <>
struct Transform<4, false> {
  static constexpr int kReads = 6, kSide = 6;
  static HWY_INLINE void input(const Vector *d, Vector *t) {
    const Vector even = plus_times(d[4], -4.0f, d[2]), odd = plus_times(d[3], -4.0f, d[1]);
    const Vector even2 = hn::Sub(d[4], d[2]), odd2 = times(2.0f, hn::Sub(d[3], d[1]));
    t[0] = plus_times(plus_times(d[4], -5.0f, d[2]), 4.0f, d[0]);
    t[1] = hn::Add(even, odd);
    t[2] = hn::Sub(even, odd);
    t[3] = hn::Add(even2, odd2);
    t[4] = hn::Sub(even2, odd2);
    t[5] = plus_times(plus_times(d[5], -5.0f, d[3]), 4.0f, d[1]);
  }
  static HWY_INLINE void output(const Vector *t, Vector *y) {
    const Vector sum1 = hn::Add(t[1], t[2]), difference1 = hn::Sub(t[1], t[2]);
    const Vector sum2 = hn::Add(t[3], t[4]), difference2 = hn::Sub(t[3], t[4]);
    y[0] = hn::Add(hn::Add(t[0], sum1), sum2);
    y[1] = plus_times(difference1, 2.0f, difference2);
    y[2] = plus_times(sum1, 4.0f, sum2);
    y[3] = hn::Add(plus_times(difference1, 8.0f, difference2), t[5]);
  }
};

template <>
struct Transform<4, true> {
  static constexpr int kReads = 4, kSide = 5;
  static HWY_INLINE void input(const Vector *d, Vector *t) {  // of d0 d1 d1 d2 d2 d3
    const Vector step = hn::Sub(d[2], d[1]);
    t[0] = plus_times(plus_times(d[2], -5.0f, d[1]), 4.0f, d[0]);
    t[1] = plus_times(times(2.0f, d[2]), -8.0f, d[1]);
    t[2] = times(3.0f, step);
    t[3] = hn::Neg(step);
    t[4] = plus_times(plus_times(d[3], -5.0f, d[2]), 4.0f, d[1]);
  }
  static HWY_INLINE void output(const Vector *t, Vector *y) {
    const Vector sum2 = hn::Add(t[2], t[3]), difference2 = hn::Sub(t[2], t[3]);
    y[0] = hn::Add(hn::Add(t[0], t[1]), sum2);
    y[1] = plus_times(t[1], 2.0f, difference2);
    y[2] = plus_times(t[1], 4.0f, sum2);
    y[3] = hn::Add(plus_times(t[1], 8.0f, difference2), t[4]);
  }
};

template <>
struct Transform<6, false> {
  static constexpr int kReads = 8, kSide = 8;
  static HWY_INLINE void input(const Vector *d, Vector *t) {
    const Vector even1 = plus_times(hn::Add(d[2], d[6]), -4.25f, d[4]);
    const Vector odd1 = plus_times(hn::Add(d[1], d[5]), -4.25f, d[3]);
    const Vector even2 = plus_times(plus_times(d[6], 0.25f, d[2]), -1.25f, d[4]);
    const Vector odd2 = plus_times(plus_times(times(0.5f, d[1]), -2.5f, d[3]), 2.0f, d[5]);
    const Vector even3 = plus_times(plus_times(d[6], 4.0f, d[2]), -5.0f, d[4]);
    const Vector odd3 = plus_times(plus_times(times(2.0f, d[1]), -2.5f, d[3]), 0.5f, d[5]);
    t[0] = plus_times(hn::Sub(d[0], d[6]), 5.25f, hn::Sub(d[4], d[2]));
    t[1] = hn::Add(even1, odd1);
    t[2] = hn::Sub(even1, odd1);
    t[3] = hn::Add(even2, odd2);
    t[4] = hn::Sub(even2, odd2);
    t[5] = hn::Add(even3, odd3);
    t[6] = hn::Sub(even3, odd3);
    t[7] = plus_times(hn::Sub(d[7], d[1]), 5.25f, hn::Sub(d[3], d[5]));
  }
  static HWY_INLINE void output(const Vector *t, Vector *y) {
    const Vector sum1 = hn::Add(t[1], t[2]), difference1 = hn::Sub(t[1], t[2]);
    const Vector sum2 = hn::Add(t[3], t[4]), difference2 = hn::Sub(t[3], t[4]);
    const Vector sum3 = hn::Add(t[5], t[6]), difference3 = hn::Sub(t[5], t[6]);
    y[0] = hn::Add(hn::Add(t[0], sum1), hn::Add(sum2, sum3));
    y[1] = plus_times(plus_times(difference1, 2.0f, difference2), 0.5f, difference3);
    y[2] = plus_times(plus_times(sum1, 4.0f, sum2), 0.25f, sum3);
    y[3] = plus_times(plus_times(difference1, 8.0f, difference2), 0.125f, difference3);
    y[4] = plus_times(plus_times(sum1, 16.0f, sum2), 0.0625f, sum3);
    y[5] = hn::Add(plus_times(plus_times(difference1, 32.0f, difference2), 0.03125f, difference3), t[7]);
  }
};

template <>
struct Transform<6, true> {
  static constexpr int kReads = 5, kSide = 7;
  static HWY_INLINE void input(const Vector *d, Vector *t) {  // of d0 d1 d1 d2 d2 d3 d3 d4
    const Vector even2 = plus_times(plus_times(d[3], 0.25f, d[1]), -1.25f, d[2]);
    const Vector odd2 = plus_times(plus_times(times(0.5f, d[1]), -2.5f, d[2]), 2.0f, d[3]);
    const Vector even3 = plus_times(plus_times(d[3], 4.0f, d[1]), -5.0f, d[2]);
    const Vector odd3 = plus_times(plus_times(times(2.0f, d[1]), -2.5f, d[2]), 0.5f, d[3]);
    t[0] = plus_times(hn::Sub(d[0], d[3]), 5.25f, hn::Sub(d[2], d[1]));
    t[1] = times(2.0f, plus_times(hn::Add(d[1], d[3]), -4.25f, d[2]));
    t[2] = hn::Add(even2, odd2);
    t[3] = hn::Sub(even2, odd2);
    t[4] = hn::Add(even3, odd3);
    t[5] = hn::Sub(even3, odd3);
    t[6] = plus_times(hn::Sub(d[4], d[1]), 5.25f, hn::Sub(d[2], d[3]));
  }
  static HWY_INLINE void output(const Vector *t, Vector *y) {
    const Vector sum2 = hn::Add(t[2], t[3]), difference2 = hn::Sub(t[2], t[3]);
    const Vector sum3 = hn::Add(t[4], t[5]), difference3 = hn::Sub(t[4], t[5]);
    y[0] = hn::Add(hn::Add(t[0], t[1]), hn::Add(sum2, sum3));
    y[1] = plus_times(plus_times(t[1], 2.0f, difference2), 0.5f, difference3);
    y[2] = plus_times(plus_times(t[1], 4.0f, sum2), 0.25f, sum3);
    y[3] = plus_times(plus_times(t[1], 8.0f, difference2), 0.125f, difference3);
    y[4] = plus_times(plus_times(t[1], 16.0f, sum2), 0.0625f, sum3);
    y[5] = hn::Add(plus_times(plus_times(t[1], 32.0f, difference2), 0.03125f, difference3), t[6]);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace galip
HWY_AFTER_NAMESPACE();
