"use strict";
/** The paper's section 4 in closed form, for K = 3 and lambda = 1: crossclass.theory.closed, line by line. */
const theory = (() => {
  const M2 = 1 / Math.sqrt(Math.PI); // E max of two standard normals (Lemma 1)
  const PENALTY = { A: [1, 2], B: [0, 0], C: [0, 0], D: [-0.5, -0.5] }; // (c_E, c_C) of the smoothed term

  const density = (x) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);

  /** Standard normal distribution function: power series near 0, continued fraction of the tail beyond. */
  function Phi(x) {
    const z = Math.abs(x);
    if (z > 3) {
      let fraction = z;
      for (let k = 100; k >= 1; k -= 1) fraction = z + k / fraction;
      const tail = density(z) / fraction;
      return x > 0 ? 1 - tail : tail;
    }
    let term = x, sum = x;
    for (let k = 3; Math.abs(term) > 1e-18; k += 2) {
      term *= (x * x) / k;
      sum += term;
    }
    return 0.5 + density(x) * sum;
  }

  /** Gauss-Legendre nodes and weights on [0, 1], by Newton's method on the Legendre polynomial. */
  function legendre(n) {
    return Array.from({ length: n }, (_, i) => {
      let x = Math.cos((Math.PI * (i + 0.75)) / (n + 0.5)), slope = 0;
      for (let step = 0; step < 8; step += 1) {
        let now = x, before = 1;
        for (let k = 2; k <= n; k += 1) [now, before] = [((2 * k - 1) * x * now - (k - 1) * before) / k, now];
        slope = (n * (x * now - before)) / (x * x - 1);
        x -= now / slope;
      }
      return [(x + 1) / 2, 1 / ((1 - x * x) * slope * slope)];
    });
  }
  const NODES = legendre(24);

  /** Owen's T(h, a) = (1/2 pi) int_0^a exp(-h^2 (1 + x^2) / 2) / (1 + x^2) dx, for a in [0, 1]. */
  function owensT(h, a) {
    let sum = 0;
    for (const [node, weight] of NODES) {
      const square = 1 + a * a * node * node;
      sum += (weight * Math.exp((-h * h * square) / 2)) / square;
    }
    return (a * sum) / (2 * Math.PI);
  }

  /** [w1*, w2*]; beta = 0 is adversarial training, else label smoothing. */
  function optimum(mu, sigma, eps, beta = 0, reading = "A") {
    const [cE, cC] = PENALTY[reading];
    const room = mu - 2 * eps;
    const g1 = (1 - beta) * room - beta * eps * cE;
    const g2 = (1 - beta) * (room - M2 * sigma) + beta * (mu - cC * eps);
    return [Math.max(g1, 0), Math.max(g2, 0)];
  }

  /** Theorem 1: w2* > 0 exactly for eps below. */
  const eps0 = (mu, sigma) => mu / 2 - (M2 * sigma) / 2;

  /** Theorem 3: the same with label smoothing. */
  const eps1 = (mu, sigma, beta, reading = "A") =>
    ((1 - beta) * (mu - M2 * sigma) + beta * mu) / (2 * (1 - beta) + beta * PENALTY[reading][1]);

  const strength = (w1, w2, mu, sigma, eps) => ((mu - 2 * eps) / sigma) * ((w1 + w2) / Math.hypot(w1, w2));

  /** Eq. 11: above one fixed other class under every perturbation; 0 for w = 0, a tie. */
  const pPair = (w1, w2, mu, sigma, eps) => (w1 + w2 > 0 ? Phi(strength(w1, w2, mu, sigma, eps)) : 0);

  /** Top-1 robust accuracy: above both other classes; 0 for w = 0, a tie. */
  function pAll(w1, w2, mu, sigma, eps) {
    if (!(w1 + w2 > 0)) return 0;
    const t = strength(w1, w2, mu, sigma, eps);
    return Phi(t) - 2 * owensT(t, w2 / Math.sqrt(2 * w1 * w1 + w2 * w2));
  }

  /** The sign of dP_all/dr at r = w2/w1, given a = (mu - 2 eps) / sigma. */
  function slope(r, a) {
    const t = (a * (1 + r)) / Math.sqrt(1 + r * r), q = (r * r) / (2 + r * r);
    const rise = ((2 * a * (1 - r)) / Math.sqrt(1 + r * r)) * Phi(t * Math.sqrt(q));
    return rise - (Math.sqrt(2 / Math.PI) * Math.exp((-t * t * q) / 2)) / Math.sqrt(2 + r * r);
  }

  /** The w2/w1 in [0, 1] of the largest P_all, by bisection. */
  function ratioBest(a) {
    if (!(slope(0, a) > 0)) return 0;
    let low = 0, high = 1;
    for (let step = 0; step < 53; step += 1) {
      const middle = (low + high) / 2;
      if (slope(middle, a) > 0) low = middle;
      else high = middle;
    }
    return low;
  }

  /** The first condition of the paper that a setting breaks, as a sentence; "" for none. */
  function broken({ mu, sigma, eps, beta }) {
    const named = { "μ": mu, "σ": sigma, "ε": eps, "β": beta };
    const conditions = [
      [mu > 0, "μ > 0 (eq. 8)", "μ"],
      [sigma > 0, "σ > 0 (eq. 8)", "σ"],
      [sigma < Math.sqrt(Math.PI) * mu, "σ < √π μ (section 4.1)", "σμ"],
      [eps >= 0, "ε ≥ 0 (eq. 10)", "ε"],
      [eps < mu / 2, "ε < μ/2 (theorems 1-3)", "εμ"],
      [beta >= 0, "β ≥ 0 (eq. 13)", "β"],
      [beta < 1 / 3, "β < 1/3 (eq. 13)", "β"],
    ];
    const found = conditions.find(([holds]) => !holds);
    if (!found) return "";
    const given = [...found[2]].map((name) => `${name} = ${Number(named[name].toPrecision(6))}`);
    return `the theory needs ${found[1]}, but ${given.join(" and ")} ${given.length === 1 ? "is" : "are"} given`;
  }

  /** All numbers of the panel as pairs (adversarial training, label smoothing); null where a condition breaks. */
  function values(setting) {
    if (broken(setting)) return null;
    const { mu, sigma, eps, beta, reading } = setting;
    const both = [optimum(mu, sigma, eps), optimum(mu, sigma, eps, beta, reading)];
    const best = ratioBest((mu - 2 * eps) / sigma);
    return {
      w1: both.map(([w1]) => w1),
      w2: both.map(([, w2]) => w2),
      ratio: both.map(([w1, w2]) => (w1 > 0 ? w2 / w1 : null)),
      threshold: [eps0(mu, sigma), eps1(mu, sigma, beta, reading)],
      pair: both.map(([w1, w2]) => pPair(w1, w2, mu, sigma, eps)),
      all: both.map(([w1, w2]) => pAll(w1, w2, mu, sigma, eps)),
      best: [best, pAll(1, best, mu, sigma, eps)],
    };
  }

  return { Phi, owensT, optimum, eps0, eps1, pPair, pAll, ratioBest, broken, values };
})();
