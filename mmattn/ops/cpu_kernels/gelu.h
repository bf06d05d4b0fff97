// The GELU, x Phi(x) with the normal distribution's Phi, and its derivative.

#pragma once

#include "simd.h"

namespace mmattn {

template <typename T>
struct Gelu {
  Vector<T> value;
  Vector<T> slope;
};

// Relative error of Phi(x) below 2e-7 where x < 0. Without the slope it is
// computed for nothing, and left out by the compiler.
inline Gelu<float> gelu(Vector<float> x) {
  const Vector<float> size = x < 0.0f ? -x : x;
  // exp(-x^2 / 2); the factor is log2(e) / 2.
  const Vector<float> bell = power_of_two(-0.72134752044f * x * x);
  // Phi(-a) = exp(-a^2 / 2) f(t) with t = 1 / (1 + 0.3 a); f is smooth, and
  // the polynomial minimises its largest relative error for a <= 14.
  const Vector<float> t = 1.0f / (1.0f + 0.3f * size);
  Vector<float> p = 0.03567488f * t - 0.1572035f;
  p = p * t + 0.20635419f;
  p = p * t - 0.05368424f;
  p = p * t + 0.12856192f;
  p = p * t + 0.09991341f;
  p = p * t + 0.12075397f;
  p = p * t + 0.1196293f;
  const Vector<float> tail = bell * (p * t);
  const Vector<float> below = x < 0.0f ? tail : 1.0f - tail;
  // The density is the bell over sqrt(2 pi).
  return {x * below, below + x * (0.39894228040f * bell)};
}

inline Gelu<double> gelu(Vector<double> x) {
  Gelu<double> out;
  for (int i = 0; i < Simd<double>::width; ++i) {
    const double below = 0.5 * std::erfc(-0.70710678118654752 * x[i]);
    const double density = 0.39894228040143268 * std::exp(-0.5 * x[i] * x[i]);
    out.value[i] = x[i] * below;
    out.slope[i] = below + x[i] * density;
  }
  return out;
}

}  // namespace mmattn
