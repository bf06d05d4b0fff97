// The GELU, x Phi(x) with the normal distribution's Phi.

#pragma once

#include "simd.h"

namespace mmattn {

// Beyond, Phi is taken as 0 or 1; it is so but for 2e-8.
constexpr float kFar = 5.5f;

// Phi is off by less than 3e-7, as PyTorch's own is. PyTorch doubles x before
// it halves the result, which overflows above half of the largest number; so
// does this, since no overflow may be hidden.
inline Vector<float> gelu(Vector<float> x) {
  const Vector<float> far = Vector<float>{} + kFar;
  const Vector<float> near = x > far ? far : x < -far ? -far : x;
  // 2 Phi(x) = 1 + x p(x^2) / q(x^2), where p and q have the least largest
  // error of such, 1.4e-8, up to kFar. All they sum is positive.
  const Vector<float> z = near * near;
  Vector<float> p = 2 * 2.2749325475e-08f * z + 2 * 6.3521326476e-06f;
  Vector<float> q = 1.1975038585e-06f * z + 7.3648001935e-05f;
  p = p * z + 2 * 1.6882715668e-04f;
  q = q * z + 1.8844531957e-03f;
  p = p * z + 2 * 4.6772696926e-03f;
  q = q * z + 2.8645953183e-02f;
  p = p * z + 2 * 3.3852787140e-02f;
  q = q * z + 2.5152227170e-01f;
  p = p * z + 2 * 3.9894223462e-01f;
  q = q * z + 1.0f;
  const Vector<float> twice = 1.0f + near * (p / q);
  return 0.5f * (x * (x < -far  ? Vector<float>{}
                      : x > far ? Vector<float>{} + 2.0f
                                : twice));
}

inline Vector<double> gelu(Vector<double> x) {
  for (int i = 0; i < Simd<double>::width; ++i)
    x[i] = 0.5 * (x[i] * std::erfc(-0.70710678118654752 * x[i]));
  return x;
}

}  // namespace mmattn
