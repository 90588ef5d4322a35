"""Composition roots, one file each: `up` (supervisor), `serve` (control plane), `relay`. Only here do siblings meet."""
