"""The simulated sky: galaxies drawn from a seed, photographed with GalSim, and classified by simulated volunteers."""
