"""From a `Scene` to a Mitsuba scene, arranged so that all scenes share their compiled kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from e2eft.scenes import atlas
from e2eft.scenes.meshes import box, merge
from e2eft.scenes.scene import FloatArray, Glass, Light, Mesh, Scene, Surface
from e2eft.scenes.variant import mitsuba, select_variant

_SPECULAR = 0.4
_LAMP_REFLECTANCE = 0.5
_LIGHT_SLOTS = 4

# At most one: Mitsuba numbers the objects that are alive, and the numbers are part of the kernels,
# so scenes that come and go one at a time share theirs. It also bounds the memory.
_built: dict[Scene, Any] = {}


def built(scene: Scene) -> Any:
    """The Mitsuba scene of `scene`, kept until that of another scene is asked for."""
    if scene not in _built:
        _built.clear()
        _built[scene] = _build(scene)
    return _built[scene]


def _build(scene: Scene) -> Any:
    mi = mitsuba()
    parts: dict[str, Any] = {"type": "scene", "sky": _sky(scene)}
    opaque = [(i.mesh, i.material) for i in scene.items if isinstance(i.material, Surface)]
    assert opaque, "a scene has at least one opaque thing"
    parts["opaque"] = _opaque_mesh(opaque)
    for number, (material, mesh) in enumerate(_by_material(scene).items()):
        children = {"bsdf": _glass(material)} if isinstance(material, Glass) else _emitter(material)
        parts[f"other{number:03d}"] = _mitsuba_mesh(mesh, mesh.uvs, children)
    return mi.load_dict(parts)


def _by_material(scene: Scene) -> dict[Glass | Light, Mesh]:
    """One mesh for each glass and light."""
    groups: dict[Glass | Light, list[Mesh]] = {}
    if select_variant().startswith("llvm"):
        # The number of objects is part of the kernels: always both glasses, and no or a multiple of
        # four lights. What a scene lacks is a mere point.
        groups = {Glass(thin=False): [], Glass(thin=True): []}
        lights = {item.material for item in scene.items if isinstance(item.material, Light)}
        for number in range(-len(lights) % _LIGHT_SLOTS):
            groups[Light((0.0, 0.0, 1e-6 * (number + 1)))] = []
    for item in scene.items:
        if not isinstance(item.material, Surface):
            groups.setdefault(item.material, []).append(item.mesh)
    point = box(0, 0, 0).moved(*scene.items[0].mesh.vertices[0])
    return {material: merge(group or [point]) for material, group in groups.items()}


def _glass(material: Glass) -> Any:
    mi = mitsuba()
    kind = "thindielectric" if material.thin else "dielectric"
    return mi.load_dict({"type": kind, "int_ior": 1.5})


def _emitter(light: Light) -> dict[str, Any]:
    mi = mitsuba()
    emitter = {
        "type": "area",
        "radiance": {"type": "rgb", "value": list(light.radiance)},
        "sampling_weight": 1.0 if max(light.radiance) > 1e-3 else 0.0,
    }
    # A black lamp would have no albedo to divide by when denoising.
    body = {"type": "diffuse", "reflectance": {"type": "rgb", "value": _LAMP_REFLECTANCE}}
    return {"bsdf": mi.load_dict(body), "emitter": mi.load_dict(emitter)}


def _sky(scene: Scene) -> dict[str, Any]:
    mi = mitsuba()
    lamps = any(isinstance(item.material, Light) for item in scene.items)
    return {
        "type": "envmap",
        "bitmap": mi.Bitmap(np.ascontiguousarray(scene.lighting.sky_radiance, np.float32)),
        "to_world": mi.ScalarTransform4f().rotate([1, 0, 0], 90),  # Mitsuba's skies are y up
        "sampling_weight": scene.lighting.sky_weight if lamps else 1.0,
    }


def _opaque_mesh(items: list[tuple[Mesh, Surface]]) -> Any:
    """Every opaque thing as one mesh with one material: see `atlas`."""
    mi = mitsuba()
    textures = {id(surface.texture): surface.texture for _, surface in items}
    number = {key: k for k, key in enumerate(textures)}
    packed = atlas.pack(list(textures.values()))
    mesh = merge(mesh for mesh, _ in items)
    uvs = np.concatenate([packed.place(number[id(s.texture)], m.uvs) for m, s in items])
    counts = [len(m.faces) for m, _ in items]
    per_face = {
        name: np.repeat(np.array([getattr(s, name) for _, s in items], np.float32), counts)
        for name in ("roughness", "metallic")
    }
    bitmap = mi.Bitmap(np.ascontiguousarray(packed.image), mi.Bitmap.PixelFormat.RGB)
    material = {
        "type": "principled",
        "specular": _SPECULAR,
        "base_color": {"type": "bitmap", "bitmap": bitmap, "raw": False, "wrap_mode": "clamp"},
        **{name: {"type": "mesh_attribute", "name": f"face_{name}"} for name in per_face},
    }
    bsdf = mi.load_dict({"type": "twosided", "material": material})
    return _mitsuba_mesh(mesh, uvs, {"bsdf": bsdf}, per_face)


def _mitsuba_mesh(
    mesh: Mesh,
    uvs: FloatArray,
    children: dict[str, Any],
    per_face: dict[str, FloatArray] | None = None,
) -> Any:
    mi = mitsuba()
    properties = mi.Properties()
    for name, child in children.items():
        properties[name] = child
    result = mi.Mesh(
        "mesh",
        len(mesh.vertices),
        len(mesh.faces),
        has_vertex_normals=True,
        has_vertex_texcoords=True,
        props=properties,
    )
    for name, values in (per_face or {}).items():
        result.add_attribute(f"face_{name}", 1, values)
    parameters = mi.traverse(result)
    parameters["vertex_positions"] = _aligned(mesh.vertices, np.float32)
    parameters["vertex_normals"] = _aligned(mesh.normals, np.float32)
    parameters["vertex_texcoords"] = _aligned(uvs, np.float32)
    parameters["faces"] = _aligned(mesh.faces, np.uint32)
    parameters.update()
    return result


def _aligned(values: NDArray[Any], kind: type[np.generic]) -> NDArray[Any]:
    """A flat copy of `values` at a multiple of 64 bytes.

    Dr.Jit borrows the memory, and compiles other kernels where it is less aligned.
    """
    flat = np.asarray(values, kind).ravel()
    memory = np.empty(flat.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + flat.nbytes].view(kind)
    copy[:] = flat
    return copy
