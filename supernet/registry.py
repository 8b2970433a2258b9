"""What can be chosen of spaces, number formats and data, by name; nothing of it is imported here."""

from collections.abc import Mapping

FAMILIES: Mapping[str, str] = {
    "digits-mbconv": "supernet.families.mbconv:digits_mbconv",
    "cifar-mbconv": "supernet.families.mbconv:cifar_mbconv",
    "cifar-pooled": "supernet.families.pooled:cifar_pooled",
    "cifar-resnet8": "supernet.families.cifar_resnet:cifar_resnet8",
    "digits-staged": "supernet.families.staged:digits_staged",
    "digits-vit": "supernet.families.vit:digits_vit",
    "cifar-vit": "supernet.families.vit:cifar_vit",
    "token-encoder": "supernet.families.encoder:token_encoder",
    "text-encoder": "supernet.families.encoder:text_encoder",
    "bert-base": "supernet.families.encoder:bert_base",
    "text-decoder": "supernet.families.decoder:text_decoder",
    "text-decoder-5m": "supernet.families.decoder:text_decoder_5m",
    "apq-proxyless": "supernet.families.apq:apq_proxyless",
    "ofa-mbv3": "supernet.families.ofa_mobile:ofa_mbv3",
    "ofa-mbv3-w1.2": "supernet.families.ofa_mobile:ofa_mbv3_wide",
    "ofa-proxyless": "supernet.families.ofa_mobile:ofa_proxyless",
    "ofa-resnet50": "supernet.families.ofa_resnet:ofa_resnet50",
}
FILE = ".json"  # the end of a space's name that is a file
FORMATS: Mapping[str, str] = {
    "fp32": "supernet.formats.builtin:FP32",
    "fp16": "supernet.formats.builtin:FP16",
    "int8": "supernet.formats.builtin:INT8",
    "int8-exact": "supernet.formats.builtin:INT8_EXACT",
    "int6": "supernet.formats.builtin:INT6",
    "int4": "supernet.formats.builtin:INT4",
    "int2": "supernet.formats.builtin:INT2",
    "int8-dynamic": "supernet.formats.builtin:INT8_DYNAMIC",
    "int8-g128": "supernet.formats.builtin:INT8_G128",
    "int4-g32": "supernet.formats.builtin:INT4_G32",
    "int4-g128": "supernet.formats.builtin:INT4_G128",
    "int2-g128": "supernet.formats.builtin:INT2_G128",
}
DATA = "trilobit.data"  # entry points of readers of data
SOURCES: Mapping[str, str] = {
    "digits": "supernet.tasks.image_sources:read_digits",
    "imagefolder": "supernet.tasks.image_sources:read_image_folder",
    "cifar10": "supernet.tasks.image_sources:read_cifar10",
    "python-tokens": "supernet.tasks.text_sources:read_python_tokens",
    "python-bytes": "supernet.tasks.text_sources:read_python_bytes",
    "text": "supernet.tasks.text_sources:read_own_text",
    "csv": "supernet.tasks.text_sources:read_text_table",
}
# how their sources are written
SOURCE_FORMS: Mapping[str, str] = {
    "digits": "digits",
    "imagefolder": "imagefolder:PATH[?size=N]",
    "cifar10": "cifar10:PATH",
    "python-tokens": "python-tokens[:length=N,step=N]",
    "python-bytes": "python-bytes[:length=N,step=N]",
    "text": "text:PATH[?length=N,step=N]",
    "csv": "csv:PATH[?text=COLUMN,label=COLUMN,length=N]",
}
# runs the bytes of a part of a graph that is kept as it is: (model, inputs) -> outputs
OPAQUE_RUNNER = "hw_profiles.runtimes.ort.opaque:run"
