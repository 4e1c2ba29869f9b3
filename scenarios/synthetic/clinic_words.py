"""Invented clinic language: what brings patients, in the words of a textbook, a letter, a hurried note and a layman."""

from __future__ import annotations

from grammar import table

TEXTBOOK, LETTER, SHORT, LAY = range(4)

_SYMPTOMS = {
    "cardiology": """
        crushing retrosternal pain | central chest pain | CP | my chest hurts
        palpitations with irregular pulse | palpitations | palps | heart is racing
        angina on exertion | tightness across the chest on stairs | chest tight on exertion | tight chest on the stairs
        peripheral oedema | ankle swelling | ankles swollen | puffy ankles
        paroxysmal nocturnal dyspnoea | wakes breathless at night | PND | cannot lie flat at night
        cardiac syncope | collapse without warning | collapse | passed out at the shop
        elevated jugular venous pressure | raised neck veins | JVP up | bulging neck
        diastolic murmur | new heart murmur | murmur on exam | doctor heard a noise in my heart
        left arm radiation | pain spreading to the left arm | pain into L arm | ache down my left arm
    """,
    "pulmonology": """
        expiratory wheeze | wheezing | wheezy | whistling breath
        productive cough | cough with green sputum | cough + sputum | coughing up green stuff
        exertional dyspnoea | shortness of breath | SOB | short of breath
        haemoptysis | coughing blood | blood in sputum | spat blood when coughing
        pleuritic pain | sharp pain on deep breathing | pleuritic CP | stabbing pain when i breathe in
        hypoxaemia | low oxygen saturation | sats low | oxygen clip read low
        bronchospasm | tightness of the chest with wheeze | tight chest + wheeze | tight chest and puffing
        nocturnal cough | dry cough at night | nocturnal cough | cough keeps me up
        inhaler overuse | increasing use of the inhaler | inhaler use up | puffer does not help
    """,
    "gastroenterology": """
        epigastric pain | upper abdominal pain | epigastric pain | tummy ache
        haematemesis | vomiting blood | vomited blood | threw up blood
        melaena | black stools | black stool | black poo
        gastro-oesophageal reflux | burning behind the breastbone after meals | reflux after food | burning after eating
        persistent emesis | repeated vomiting | N&V | being sick
        chronic diarrhoea | loose stools | loose stool | the runs
        jaundice | yellow skin and eyes | jaundiced | gone yellow
        dysphagia | difficulty swallowing | trouble swallowing | food gets stuck
        biliary colic | cramps under the ribs after fatty food | RUQ pain | cramp under my ribs
    """,
    "neurology": """
        unilateral weakness | weakness of one side | L sided weakness | arm and leg gone weak
        thunderclap cephalalgia | sudden severe headache | worst HA | terrible head pain
        tonic-clonic seizure | convulsions | seizure | had a fit
        expressive aphasia | slurred speech | slurred speech | words come out wrong
        vertigo with nystagmus | spinning dizziness | vertigo | room is spinning
        paraesthesia | numbness and tingling | numb + tingling | pins and needles
        migraine with aura | throbbing headache with zigzag lights | HA with aura | headache with flashing lights
        resting tremor | trembling of the hand | tremor at rest | hand keeps shaking
        transient amnesia | sudden memory loss | memory loss | cannot remember the morning
    """,
    "orthopaedics": """
        femoral neck fracture | hip pain after a fall | hip pain s/p fall | hurt my hip falling
        knee effusion | swollen knee | knee swollen | fat knee
        anterior cruciate rupture | knee giving way | knee unstable | knee buckles
        lumbar strain | lower back pain on lifting | LBP after lifting | did my back in
        rotator cuff tear | shoulder pain on raising the arm | shoulder pain w/ abduction | cannot lift my arm
        ankle inversion injury | twisted ankle | ankle twist | rolled my ankle
        distal radius fracture | wrist deformity after a fall | wrist deformed FOOSH | bent wrist
        degenerative arthritis | morning stiffness of the joints | joint stiffness a.m. | stiff joints
        impingement | clicking of the joint | joint clicking | bones click
    """,
    "dermatology": """
        vesicular eruption | blistering rash | vesicles | blisters
        atopic eczema | itchy rash in the elbow creases | itchy rash flexures | itchy patches
        urticaria | raised itchy weals | hives | bumps that itch
        psoriatic plaques | scaly plaques | scaly plaques | flaky skin
        melanocytic lesion | a changing mole | mole changed | mole looks odd
        cellulitis | red hot skin of the leg | red hot skin | skin is red and hot
        alopecia areata | patches of hair loss | patchy hair loss | hair falls out
        acne vulgaris | spots on the face and back | acne face + back | pimples
        contact dermatitis | burning rash after new gloves | rash after gloves | burning skin from soap
    """,
    "urology": """
        dysuria | burning on passing urine | burning urination | burns when i pee
        renal colic | loin pain in waves | flank pain | pain in my side in waves
        haematuria | blood in the urine | blood in urine | red pee
        urinary retention | unable to pass urine | no urine output 10h | cannot pee
        nocturia | passing urine at night | nocturia | up all night to pee
        testicular torsion | sudden testicular pain | scrotal pain | groin swollen and sore
        urge incontinence | leaking before reaching the toilet | urge incontinence | wet myself
        urethral discharge | discharge from the urethra | urethral d/c | discharge down below
    """,
    "ophthalmology": """
        amaurosis fugax | sudden loss of vision in one eye | vision loss OD | one eye went dark
        photopsia | flashes and floaters | flashes + floaters | lights and cobwebs in my eye
        conjunctival injection | red sticky eye | red eye + discharge | gunky eye
        diplopia | double vision | double vision | seeing two of things
        corneal abrasion | gritty eye after dust | gritty eye | something in my eye
        acute glaucoma | painful eye with halos | eye pain halos | rings round the lamp
        cataract | cloudy vision | vision cloudy | blurry like fog
        ptosis | drooping eyelid | lid droop | eyelid hangs down
    """,
}

SYMPTOMS: dict[str, list[tuple[str, ...]]] = {department: table(text) for department, text in _SYMPTOMS.items()}
DEPARTMENTS = tuple(SYMPTOMS)

VAGUE = table("""
    malaise | generally unwell | feels unwell | feeling rotten
    fatigue | tired | fatigue | worn out
    pyrexia | fever | temp | hot and cold
    presyncope | light-headed | dizzy | woozy
    diaphoresis | sweating | sweaty | clammy
    anorexia | poor appetite | not eating | off my food
    insomnia | poor sleep | not sleeping | cannot sleep
    anxiety | anxious | anxious | worried
    generalised pain | aches all over | body aches | sore all over
""")

CONDITIONS = {
    "cardiology": ("hypertension", "heart failure", "atrial fibrillation", "a stent"),
    "pulmonology": ("asthma", "emphysema", "a lung clot", "sleep apnoea"),
    "gastroenterology": ("gallstones", "ulcer disease", "coeliac disease", "a hernia"),
    "neurology": ("epilepsy", "migraine", "a small stroke", "neuropathy"),
    "orthopaedics": ("a hip replacement", "gout", "osteoporosis", "a broken collarbone"),
    "dermatology": ("eczema", "psoriasis", "a removed mole", "rosacea"),
    "urology": ("kidney stones", "an enlarged prostate", "urine infections", "a catheter"),
    "ophthalmology": ("cataract surgery", "glaucoma", "a lazy eye", "a torn retina"),
}

ONSETS = ("since this morning", "for two days", "for three days", "for a week", "since last night", "for some weeks")
ONSETS_SHORT = ("x1d", "x2d", "x3d", "x1wk", "x2wk", "2/7", "3/7", "since am")
CONTEXT = (
    "lives alone", "works in a bakery", "came with a neighbour", "allergic to penicillin", "smokes ten a day",
    "does not smoke", "back from a holiday", "takes a blood thinner", "drives a bus", "last seen in spring",
    "walked in", "brought by ambulance", "teacher at the village school", "missed breakfast", "anxious about the wait",
)  # fmt: skip
