"""The objectives, a file each: the folder is the registry.

`SHIPPED` are those whose code is no part of a run's id, since their numbers are held by tests; an objective that is not
among them is known by what is in its file.

Deviations from the authors' code, in all of them: a warm-up begins with the first step of the rise, where most of
theirs spend one at its bottom; a cosine moves the learning rate every step, where some move it every epoch; images are
normalized by the statistics of their own data, where most have constants; blur ends at a twentieth of the image on
either side, where most have PIL's.
"""

SHIPPED = frozenset(
    """
    aim amdim audiovisual_mae avid barlow beit byol cae capi clip clusterfit colorization context_encoder croco
    cubic_puzzles data2vec deepcluster denoising dense.depth_estimator dense.object_detector dense.segmenter densecl
    depthcontrast dino dinov2 dinov3 droppos essl feature_distillation flexpredict gdt gmml ibot ijepa imagebind
    jigsaw lejepa m3ae macrl mae mage maskfeat mavil mixedae moco mocov3 msn multimae nepa nnclr obow omnivore pirl
    pixpro pointcontrast random_walk relative_position ropim rotation salt sela selfie semaim siglip simclr simdino
    simdinov2 simmim simsiam slip split_brain supervised swav tico uniter vicreg visreg vqvae
    """.split()  # noqa: SIM905
)
